from kratos_sync.application.consumers.forget_identity import ForgetIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.domain.events import IdentityDeleted, IdentityDeletionRequested
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.testing.fakes import InMemoryKratosIdentities
from kratos_sync.testing.ledger import InMemoryLedger
from tests.domain.people import ADA, cause, minutes, webhook
from tests.suites.occurrences import updated


def requested(number: int = 2) -> IdentityDeletionRequested:
    return IdentityDeletionRequested(cause(number), minutes(number), ADA)


def test_it_leaves_a_tombstone() -> None:
    ada = KratosIdentity.seen(webhook(), at=minutes(1), cause=cause(1))
    ada.collect_events()

    ForgetIdentity(InMemoryKratosIdentities([ada])).consume(requested())

    assert (ada.deleted_at, ada.forgotten_at) == (minutes(2), minutes(2))
    assert [type(event) for event in ada.collect_events()] == [IdentityDeleted]


def test_a_person_never_seen_does_not_come_later() -> None:
    identities = InMemoryKratosIdentities()

    ForgetIdentity(identities).consume(requested())
    SyncKratosIdentity(identities, InMemoryLedger().webhooks).consume(updated(3, at=minutes(3)))

    ada = identities.find(ADA)
    assert ada is not None
    assert ada.deleted_at == minutes(2)
