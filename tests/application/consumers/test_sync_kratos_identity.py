import pytest

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.domain.events import IdentityRegistered, IdentityTraitsChanged
from kratos_sync.testing.fakes import InMemoryKratosIdentities
from kratos_sync.testing.ledger import InMemoryLedger
from tests.domain.people import ADA, cause, met, minutes, webhook
from tests.suites.occurrences import updated


@pytest.fixture
def identities() -> InMemoryKratosIdentities:
    return InMemoryKratosIdentities()


def test_an_identity_seen_for_the_first_time_is_added(identities: InMemoryKratosIdentities) -> None:
    SyncKratosIdentity(identities, InMemoryLedger().webhooks).consume(updated(1))

    ada = identities.find(ADA)
    assert ada is not None
    assert ada.traits == webhook().traits
    assert [type(event) for event in ada.collect_events()] == [IdentityRegistered]


def test_an_identity_seen_before_is_updated() -> None:
    ada = met(webhook())
    identities = InMemoryKratosIdentities([ada])

    SyncKratosIdentity(identities, InMemoryLedger().webhooks).consume(
        updated(2, at=minutes(5), minute=4, traits={"email": "ada@home.org"})
    )

    assert list(identities) == [ada]
    assert ada.traits == {"email": "ada@home.org"}
    assert [type(event) for event in ada.collect_events()] == [IdentityTraitsChanged]


def test_what_is_raised_stands_at_the_time_of_the_event_and_follows_from_it(
    identities: InMemoryKratosIdentities,
) -> None:
    SyncKratosIdentity(identities, InMemoryLedger().webhooks).consume(updated(3, at=minutes(3)))

    ada = identities.find(ADA)
    assert ada is not None
    (registered,) = ada.collect_events()
    assert registered.date_occurred == ada.synced_at == minutes(3)
    assert registered.id.int >> 80 == cause(3).int >> 80


def test_hearing_it_again_changes_nothing() -> None:
    ada = met(webhook())

    SyncKratosIdentity(InMemoryKratosIdentities([ada]), InMemoryLedger().webhooks).consume(
        updated(2, at=minutes(9))
    )

    assert (ada.changed, ada.collect_events(), ada.version) == (frozenset(), [], 1)
