"""What our copy decides when Kratos no longer has an identity, or has it again."""

import pytest

from kratos_sync.domain.events import IdentityDeleted, IdentityDiscovered
from kratos_sync.domain.json_values import ABSENT
from kratos_sync.domain.kratos_identity import BLANK, KratosIdentity
from tests.domain.people import (
    ADA,
    LOYAL,
    NOON,
    address,
    cause,
    exact,
    met,
    minutes,
    row_of,
    tombstone,
    webhook,
)


def deleted(at: float = 70) -> KratosIdentity:
    row = met(exact(traits={"n": LOYAL}, external_id="crm-17", pronouns="she"), webhook(3))
    row.mark_deleted(at=minutes(at), cause=cause(9))
    row.collect_events()
    row.mark_stored()
    return row


def test_a_tombstone_keeps_the_id_and_times_and_nothing_of_the_person() -> None:
    row = deleted()

    assert (row.id, row.created_at, row.updated_at) == (ADA, NOON, minutes(3))
    assert row.deleted_at == row.synced_at == minutes(70)
    for field, nothing in BLANK.items():
        assert getattr(row, field) == (NOON if field == "created_at" else nothing)


def test_an_identity_we_never_saw_can_be_gone() -> None:
    row = tombstone(minutes(61))

    assert [type(fact) for fact in row.collect_events()] == [IdentityDeleted]
    assert (row.version, row.deleted_at, row.traits) == (1, minutes(61), ABSENT)


@pytest.mark.parametrize("row", [deleted(), tombstone(NOON)])
def test_a_late_webhook_brings_nobody_back(row: KratosIdentity) -> None:
    row.collect_events()
    row.mark_stored()
    before = row_of(row), row.version

    row.update(webhook(60), at=minutes(120), cause=cause(60))

    assert (row_of(row), row.version) == before
    assert (row.changed, row.collect_events()) == (frozenset(), [])


@pytest.mark.parametrize("at", [69, 70])
def test_an_exact_snapshot_observed_before_the_deletion_brings_nobody_back(at: float) -> None:
    row = deleted()

    row.update(exact(60), at=minutes(at), cause=cause(60))

    assert row.deleted_at == minutes(70)
    assert row.version == 3


def test_an_exact_snapshot_observed_later_heals_a_deletion_seen_by_mistake() -> None:
    row = deleted()

    row.update(
        exact(1, verifiable_addresses=[address(verified_at=minutes(61))]),
        at=minutes(71),
        cause=cause(60),
    )

    assert [type(fact) for fact in row.collect_events()] == [IdentityDiscovered]
    assert (row.deleted_at, row.seen_alive_at, row.version) == (None, minutes(71), 4)
    assert row.updated_at == minutes(1)
    assert row.external_id is None


def test_the_healed_row_is_as_if_nothing_had_been_before() -> None:
    healed = deleted()
    healed.update(exact(1), at=minutes(71), cause=cause(60))

    fresh = KratosIdentity.seen(exact(1), at=minutes(71), cause=cause(60))

    assert row_of(healed) == row_of(fresh)


def test_a_second_deletion_raises_nothing_and_the_newest_stands() -> None:
    row = deleted()

    row.mark_deleted(at=minutes(80), cause=cause(20))
    row.mark_deleted(at=minutes(75), cause=cause(15))

    assert row.deleted_at == minutes(80)
    assert row.collect_events() == []
    assert row.version == 4


def test_a_deletion_older_than_a_sign_of_life_is_ignored() -> None:
    row = KratosIdentity.seen(exact(), at=minutes(80), cause=cause())
    row.collect_events()

    row.mark_deleted(at=minutes(79), cause=cause(9))

    assert row.deleted_at is None
    assert row.collect_events() == []


def test_of_a_deletion_and_a_sign_of_life_at_one_moment_the_deletion_stands() -> None:
    row = KratosIdentity.seen(exact(), at=minutes(80), cause=cause())

    row.mark_deleted(at=minutes(80), cause=cause(9))

    assert row.deleted_at == minutes(80)


def test_a_later_sign_of_life_is_kept_though_nothing_else_changes() -> None:
    row = met(exact())

    row.update(exact(), at=minutes(90), cause=cause(30))

    assert row.changed == {"seen_alive_at"}
    assert row.version == 1
    row.mark_deleted(at=minutes(89), cause=cause(29))
    assert row.deleted_at is None


def test_a_webhook_is_no_sign_of_life() -> None:
    row = met(webhook())
    row.update(webhook(5), at=minutes(90), cause=cause(30))

    row.mark_deleted(at=minutes(89), cause=cause(29))

    assert row.deleted_at == minutes(89)
