"""An erasure is requested, not observed in Kratos, and nothing that Kratos shows undoes it."""

from datetime import timedelta

import pytest

from kratos_sync.domain.events import EVENTS, IMPERSONAL, IdentityDeleted
from kratos_sync.domain.kratos_identity import BLANK, KratosIdentity
from tests.domain.people import ADA, cause, exact, minutes, webhook


def alive() -> KratosIdentity:
    row = KratosIdentity.seen(webhook(), at=minutes(1), cause=cause(1))
    row.collect_events()
    row.mark_stored()
    return row


def test_an_erased_identity_leaves_a_tombstone_and_a_fact() -> None:
    row = alive()

    row.erase(at=minutes(5), cause=cause(2))

    assert (row.deleted_at, row.forgotten_at, row.synced_at) == (minutes(5),) * 3
    assert {name: getattr(row, name) for name in BLANK} == BLANK
    (fact,) = row.collect_events()
    assert isinstance(fact, IdentityDeleted)
    assert (fact.identity_id, fact.version) == (ADA, row.version)


def test_an_identity_never_seen_can_be_erased_too() -> None:
    row = KratosIdentity.unseen(ADA, at=minutes(5))
    row.erase(at=minutes(5), cause=cause(1))

    assert (row.deleted_at, row.forgotten_at) == (minutes(5), minutes(5))
    assert [type(fact) for fact in row.collect_events()] == [IdentityDeleted]


def test_nothing_that_kratos_shows_brings_an_erased_identity_back() -> None:
    row = alive()
    row.erase(at=minutes(5), cause=cause(2))
    row.collect_events()

    row.update(webhook(updated=8), at=minutes(8), cause=cause(3))
    row.update(exact(updated=9), at=minutes(9), cause=cause(4))

    assert row.traits is BLANK["traits"]
    assert row.deleted_at == minutes(5)
    assert row.collect_events() == []


def test_what_kratos_showed_later_does_not_prevent_an_erasure() -> None:
    """As it would from `gone`: here it is known that Kratos has the identity still."""
    row = alive()
    row.update(exact(updated=9), at=minutes(9), cause=cause(2))
    row.collect_events()

    row.erase(at=minutes(5), cause=cause(3))

    assert row.forgotten_at == minutes(5)
    assert [type(fact) for fact in row.collect_events()] == [IdentityDeleted]


def test_erasing_again_changes_nothing() -> None:
    row = alive()
    row.erase(at=minutes(5), cause=cause(2))
    row.collect_events()
    row.mark_stored()

    row.erase(at=minutes(6), cause=cause(3))

    assert (row.changed, row.collect_events()) == (frozenset(), [])


@pytest.mark.parametrize("later", [-1, 1])
def test_who_was_gone_already_is_deleted_once(later: int) -> None:
    row = alive()
    row.mark_deleted(at=minutes(5), cause=cause(2))
    row.collect_events()
    asked_at = minutes(5) + timedelta(minutes=later)

    row.erase(at=asked_at, cause=cause(3))

    assert row.collect_events() == []
    assert (row.forgotten_at, row.deleted_at) == (asked_at, max(asked_at, minutes(5)))


def test_what_says_nothing_of_a_person_says_who_and_when() -> None:
    """What outlasts an erasure is chosen by name: a new event is personal until it says not."""
    assert EVENTS.keys() > IMPERSONAL
    assert "kratos_identity.updated" not in IMPERSONAL
    assert {name for name in EVENTS if "deleted" in name or "gone" in name} < IMPERSONAL
