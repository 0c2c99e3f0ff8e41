"""What our copy decides about one identity after each snapshot: which facts, which version."""

from datetime import timedelta

import pytest

from kratos_sync.domain.events import (
    AddressVerified,
    DomainEvent,
    IdentityDeleted,
    IdentityDiscovered,
    IdentityRegistered,
    IdentityStateChanged,
    IdentityTraitsChanged,
    TraitChange,
    fact_id,
)
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT, Json
from kratos_sync.domain.kratos_identity import COLUMNS, REGISTRATION_WINDOW, KratosIdentity
from tests.domain.people import (
    ADA,
    LOYAL,
    NOON,
    address,
    cause,
    document,
    exact,
    met,
    minutes,
    partial,
    row_of,
    webhook,
    without,
)


def facts_of(row: KratosIdentity, snapshot: Identity) -> list[DomainEvent]:
    row.update(snapshot, at=minutes(2), cause=cause(9))
    return row.collect_events()


def first_facts(identity: Identity, seconds: float = 1) -> list[DomainEvent]:
    at = NOON + timedelta(seconds=seconds)
    return KratosIdentity.seen(identity, at=at, cause=cause()).collect_events()


@pytest.mark.parametrize("seconds", [0, 93, 600, -120])
def test_an_identity_created_just_now_is_registered(seconds: float) -> None:
    at = NOON + timedelta(seconds=seconds)

    (registered,) = first_facts(webhook(), seconds)

    what = fact_id(cause(), "identity.registered")
    traits: dict[str, Json] = {
        "email": "ada@example.org",
        "name": {"first": "Ada", "last": "Lovelace"},
    }
    assert registered == IdentityRegistered(what, at, ADA, 1, traits, NOON)


def test_an_identity_created_long_before_is_discovered() -> None:
    late = REGISTRATION_WINDOW.total_seconds() + 1

    assert [type(fact) for fact in first_facts(webhook(), late)] == [IdentityDiscovered]


@pytest.mark.parametrize(
    "identity", [partial(traits={}), webhook(created_at="0001-01-01T00:00:00Z")]
)
def test_an_identity_of_unknown_age_is_discovered(identity: Identity) -> None:
    assert [type(fact) for fact in first_facts(identity)] == [IdentityDiscovered]


def test_an_address_verified_before_its_registration_arrives_is_raised_with_it() -> None:
    verified = webhook(verifiable_addresses=[address(verified_at=minutes(0.1))])

    registered, address_verified = first_facts(verified)

    assert isinstance(registered, IdentityRegistered)
    what = "identity.address_verified\0email\0ada@example.org"
    assert address_verified == AddressVerified(
        fact_id(cause(), what),
        NOON + timedelta(seconds=1),
        ADA,
        1,
        "email",
        "ada@example.org",
        minutes(0.1),
    )


def test_a_discovery_raises_no_verification() -> None:
    verified = webhook(verifiable_addresses=[address(verified_at=minutes(0.1))])

    assert [type(fact) for fact in first_facts(verified, 3600)] == [IdentityDiscovered]


def test_an_identity_first_seen_without_traits_has_none() -> None:
    (discovered,) = first_facts(partial())

    assert isinstance(discovered, IdentityDiscovered)
    assert discovered.traits == {}
    assert discovered.created_at is None


@pytest.mark.parametrize("snapshot", [webhook(), exact(), webhook(7), partial(), webhook(None)])
def test_a_redelivered_event_changes_nothing(snapshot: Identity) -> None:
    row = met(snapshot)

    assert facts_of(row, snapshot) == []
    assert row.version == 1
    assert row.synced_at == minutes(60)
    assert not row.changed - {"seen_alive_at"}


def test_an_older_snapshot_changes_nothing() -> None:
    row = met(webhook(5))

    assert facts_of(row, webhook(4, traits={"email": "ada@old.org"}, state="inactive")) == []
    assert (row.version, row.changed) == (1, frozenset())


def test_a_newer_snapshot_moves_the_version_by_one() -> None:
    row = met(webhook())

    row.update(webhook(5), at=minutes(6), cause=cause(9))

    assert (row.version, row.synced_at, row.updated_at) == (2, minutes(6), minutes(5))
    assert row.changed == {"updated_at", "synced_at", "version"}
    assert row.collect_events() == []


def test_changed_traits_are_raised_by_name_old_and_new() -> None:
    row = met(webhook(traits={"email": "ada@example.org", "phone": None, "pages": [1]}))

    facts = facts_of(row, webhook(1, traits={"email": "ada@king.org", "name": {}, "pages": [1.0]}))

    assert facts == [
        IdentityTraitsChanged(
            fact_id(cause(9), "identity.traits_changed"),
            minutes(2),
            ADA,
            2,
            (
                TraitChange("email", "ada@example.org", "ada@king.org"),
                TraitChange("name", ABSENT, {}),
                TraitChange("phone", None, ABSENT),
            ),
        )
    ]
    assert row.changed == {"traits", "updated_at", "synced_at", "version"}


def test_a_number_that_becomes_a_boolean_is_a_change() -> None:
    (changed,) = facts_of(
        met(webhook(traits={"newsletter": 1})), webhook(1, traits={"newsletter": True})
    )

    assert isinstance(changed, IdentityTraitsChanged)


def test_traits_that_arrive_late_are_a_change_from_absent() -> None:
    row = met(partial(0, state="active"))

    (changed,) = facts_of(row, partial(0, traits={"email": "ada@example.org"}))

    assert isinstance(changed, IdentityTraitsChanged)
    assert changed.changes == (TraitChange("email", ABSENT, "ada@example.org"),)


def test_a_changed_state_is_raised_old_and_new() -> None:
    row = met(webhook())

    facts = facts_of(row, webhook(1, state="inactive", state_changed_at="2026-11-23T12:01:00Z"))

    what = fact_id(cause(9), "identity.state_changed")
    assert facts == [
        IdentityStateChanged(what, minutes(2), ADA, 2, "active", "inactive", minutes(1))
    ]


def test_a_verification_is_raised_though_no_updated_at_moves() -> None:
    row = met(webhook())

    facts = facts_of(row, webhook(verifiable_addresses=[address(verified_at=minutes(1))]))

    assert [type(fact) for fact in facts] == [AddressVerified]
    assert row.changed == {"verifiable_addresses", "synced_at", "version"}


def test_a_new_address_that_arrives_verified_is_raised() -> None:
    row = met(webhook(verifiable_addresses=[address(verified_at=minutes(1))]))
    both: list[Json] = [
        address(verified_at=minutes(1)),
        address("ada@king.org", verified_at=minutes(2)),
    ]

    (verified,) = facts_of(row, webhook(3, verifiable_addresses=both))

    assert isinstance(verified, AddressVerified)
    assert verified.value == "ada@king.org"


def test_a_second_verification_is_kept_and_not_raised() -> None:
    row = met(webhook(verifiable_addresses=[address(verified_at=minutes(1))]))

    assert facts_of(row, webhook(verifiable_addresses=[address(verified_at=minutes(3))])) == []
    assert row.version == 2
    assert row.verifiable_addresses is not ABSENT
    assert row.verifiable_addresses[0].verified_at == minutes(3)


def test_two_verifications_of_one_event_have_ids_of_their_own() -> None:
    home = address("ada@home.org", verified_at=minutes(1))
    work = address("ada@work.org", verified_at=minutes(1))

    facts = facts_of(met(webhook()), webhook(verifiable_addresses=[home, work]))

    assert len({fact.id for fact in facts}) == 2


def test_an_exact_number_refines_the_row_and_is_no_change_of_traits() -> None:
    row = met(webhook(traits={"loyalty_number": 2**53}))

    assert facts_of(row, exact(0, traits={"loyalty_number": LOYAL})) == []
    assert row.traits == {"loyalty_number": LOYAL}
    assert row.version == 2


def test_facts_are_handed_over_once() -> None:
    row = KratosIdentity.seen(webhook(), at=NOON, cause=cause())

    assert len(row.collect_events()) == 1
    assert row.collect_events() == []


def test_a_copy_is_rebuilt_from_its_columns() -> None:
    row = met(exact(2, traits={"loyalty_number": LOYAL}), webhook(3), partial(4, pronouns="she"))

    rebuilt = KratosIdentity(**{column: getattr(row, column) for column in COLUMNS})

    assert row_of(rebuilt) == row_of(row)
    assert rebuilt.changed == frozenset()
    assert facts_of(rebuilt, webhook(3)) == []
    assert rebuilt.version == row.version


def test_a_new_copy_is_all_news_to_the_store() -> None:
    row = KratosIdentity.seen(webhook(), at=NOON, cause=cause())

    assert row.changed >= {"traits", "state", "updated_at", "version", "synced_at"}
    row.mark_stored()
    assert row.changed == frozenset()


def test_a_copy_shows_no_personal_data() -> None:
    assert "ada@example.org" not in repr(met(webhook()))
    assert str(ADA) in repr(met(webhook()))


def test_an_identity_that_lost_its_addresses_in_a_passkey_login_keeps_them() -> None:
    row = met(webhook())

    row.update(
        Identity.from_kratos(without(document(5), "verifiable_addresses")),
        at=minutes(5),
        cause=cause(9),
    )

    assert row.verifiable_addresses is not ABSENT
    assert len(row.verifiable_addresses) == 1


def test_a_deletion_is_a_fact_of_its_own() -> None:
    row = met(webhook())

    row.mark_deleted(at=minutes(5), cause=cause(9))

    what = fact_id(cause(9), "identity.deleted")
    assert row.collect_events() == [IdentityDeleted(what, minutes(5), ADA, 2)]
