from kratos_sync.application.consumers.delete_kratos_identity import DeleteKratosIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.domain.events import IdentityDeleted
from kratos_sync.domain.json_values import ABSENT
from kratos_sync.testing.fakes import InMemoryKratosIdentities
from kratos_sync.testing.ledger import InMemoryLedger
from tests.domain.people import ADA, met, minutes, webhook
from tests.suites.occurrences import gone, updated


def test_a_tombstone_takes_the_place_of_an_identity() -> None:
    ada = met(webhook())

    DeleteKratosIdentity(InMemoryKratosIdentities([ada])).consume(gone(2))

    assert (ada.deleted_at, ada.traits, ada.verifiable_addresses) == (minutes(2), ABSENT, ABSENT)
    assert [type(event) for event in ada.collect_events()] == [IdentityDeleted]


def test_an_identity_never_seen_leaves_a_tombstone_too() -> None:
    identities = InMemoryKratosIdentities()

    DeleteKratosIdentity(identities).consume(gone(2))

    ada = identities.find(ADA)
    assert ada is not None
    assert ada.deleted_at == minutes(2)


def test_a_late_webhook_does_not_bring_a_person_back() -> None:
    identities = InMemoryKratosIdentities()
    DeleteKratosIdentity(identities).consume(gone(2))

    SyncKratosIdentity(identities, InMemoryLedger().webhooks).consume(updated(3, at=minutes(3)))

    ada = identities.find(ADA)
    assert ada is not None
    assert (ada.deleted_at, ada.traits) == (minutes(2), ABSENT)


def test_a_second_burial_raises_nothing() -> None:
    ada = met(webhook())
    consumer = DeleteKratosIdentity(InMemoryKratosIdentities([ada]))
    consumer.consume(gone(2))
    ada.collect_events()

    consumer.consume(gone(2))

    assert ada.collect_events() == []
