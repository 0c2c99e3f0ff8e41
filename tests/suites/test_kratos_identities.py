"""What every collection of identities does, be it in memory or in PostgreSQL."""

from dataclasses import fields
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kratos_sync.domain.addresses import RecoveryAddress, VerifiableAddress, united
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT, Json, same
from kratos_sync.domain.kratos_identity import COLUMNS, KratosIdentity
from tests.domain.people import (
    ADA,
    GRACE,
    NOON,
    address,
    cause,
    exact,
    met,
    minutes,
    tombstone,
    webhook,
)
from tests.domain.test_recordings import CALLS, WEBHOOKS
from tests.suites.occurrences import MARY, person, snapshot_of
from tests.suites.stores import Identities

# What the webhook's door lets in: PostgreSQL's text has neither U+0000 nor lone surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
# Larger floats are written out in all their digits by jsonb, and so come back as integers.
floats = st.floats(min_value=-(2.0**53), max_value=2.0**53)
numbers = st.integers(min_value=-(10**40), max_value=10**40) | floats
anything: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
times = st.datetimes(timezones=st.just(UTC))
objects = st.dictionaries(texts, anything, max_size=3)
may_be_absent = anything | st.just(ABSENT)
verifiable = st.builds(
    VerifiableAddress,
    id=st.none() | st.uuids(),
    value=texts,
    verified=st.booleans(),
    via=texts,
    status=st.none() | texts,
    verified_at=st.none() | times,
    created_at=st.none() | times,
    updated_at=st.none() | times,
    unknown=objects.map(lambda rest: {f"x_{key}": value for key, value in rest.items()}),
)
recovery = st.builds(
    RecoveryAddress,
    id=st.none() | st.uuids(),
    value=texts,
    via=texts,
    created_at=st.none() | times,
    updated_at=st.none() | times,
)
rows = st.builds(
    KratosIdentity,
    id=st.just(ADA),
    schema_id=st.none() | texts,
    schema_url=st.none() | texts,
    state=st.none() | texts,
    state_changed_at=st.none() | times,
    traits=may_be_absent,
    verifiable_addresses=st.just(ABSENT) | st.lists(verifiable, max_size=3).map(united),
    recovery_addresses=st.just(ABSENT) | st.lists(recovery, max_size=3).map(united),
    metadata_public=may_be_absent,
    metadata_admin=may_be_absent,
    external_id=st.none() | texts,
    organization_id=st.none() | st.uuids(),
    region=st.none() | texts,
    unknown=objects,
    created_at=st.none() | times,
    updated_at=st.none() | times,
    deleted_at=st.none() | times,
    synced_at=times,
    version=st.integers(min_value=1, max_value=2**31 - 1),
    part_recency=objects,
    exact_at=st.none() | times,
    exact_numbers=st.none() | st.dictionaries(texts, st.integers(), max_size=3),
    seen_alive_at=st.none() | times,
)


def differences(one: KratosIdentity, other: KratosIdentity) -> dict[str, tuple[Any, Any]]:
    pairs = {column: (getattr(one, column), getattr(other, column)) for column in COLUMNS}
    return {column: pair for column, pair in pairs.items() if not same(*pair)}


def kept(identities: Identities, identity_id: UUID) -> KratosIdentity:
    with identities() as store:
        found = store.find(identity_id)
    assert found is not None
    return found


def stored(identities: Identities, *snapshots: Identity) -> KratosIdentity:
    """Our copy after these snapshots, each applied in a transaction of its own."""
    for number, snapshot in enumerate(snapshots, start=1):
        with identities() as store:
            held = store.find(snapshot.id)
            if held is None:
                store.add(KratosIdentity.seen(snapshot, at=minutes(number), cause=cause(number)))
            else:
                held.update(snapshot, at=minutes(number), cause=cause(number))
    return kept(identities, snapshots[0].id)


def test_the_strategy_makes_every_field() -> None:
    assert {field.name for field in fields(KratosIdentity) if field.init} == set(COLUMNS)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(row=rows)
def test_every_field_comes_back_as_it_was(identities: Identities, row: KratosIdentity) -> None:
    row.id = uuid4()
    with identities() as store:
        store.add(row)

    assert differences(kept(identities, row.id), row) == {}


@pytest.mark.parametrize("seed", range(3))
def test_recorded_people_come_back_as_they_were(identities: Identities, seed: int) -> None:
    snapshots = Random(seed).sample([*WEBHOOKS, *CALLS], k=40)
    expected: dict[UUID, KratosIdentity] = {}
    for number, snapshot in enumerate(snapshots):
        at, why = minutes(number), cause(number)
        if snapshot.id in expected:
            expected[snapshot.id].update(snapshot, at=at, cause=why)
        else:
            expected[snapshot.id] = KratosIdentity.seen(snapshot, at=at, cause=why)
        with identities() as store:
            held = store.find(snapshot.id)
            if held is None:
                store.add(KratosIdentity.seen(snapshot, at=at, cause=why))
            else:
                held.update(snapshot, at=at, cause=why)

    with identities() as store:
        for identity_id, row in expected.items():
            found = store.find(identity_id)
            assert found is not None
            assert differences(found, row) == {}


@pytest.mark.parametrize("part", ["traits", "metadata_public", "metadata_admin"])
def test_absent_is_not_null_nor_is_anything_else(identities: Identities, part: str) -> None:
    values: list[Any] = [ABSENT, None, {}, [], "", 0, False, "null"]
    with identities() as store:
        for number, value in enumerate(values):
            row = {"id": person(number), part: value}
            store.add(KratosIdentity(**row, synced_at=NOON, version=1))

    came_back = [getattr(kept(identities, person(number)), part) for number in range(len(values))]

    assert came_back == values
    assert [type(value) for value in came_back] == [type(value) for value in values]


def test_no_addresses_are_not_absent_addresses(identities: Identities) -> None:
    with identities() as store:
        store.add(KratosIdentity(id=ADA, synced_at=NOON, version=1, verifiable_addresses=()))

    ada = kept(identities, ADA)

    assert (ada.verifiable_addresses, ada.recovery_addresses) == ((), ABSENT)


def test_large_integers_keep_every_digit(identities: Identities) -> None:
    numbers: list[Json] = [2**53 + 1, 2**63 + 1, -(2**64) - 1, 10**300 + 7]

    ada = stored(identities, exact(traits={"loyalty_number": 2**63 + 1, "all": numbers}))

    assert ada.traits == {"loyalty_number": 2**63 + 1, "all": numbers}
    assert ada.exact_numbers is not None
    assert ada.exact_numbers["/traits/loyalty_number"] == 2**63 + 1
    assert ada.exact_numbers["/traits/all/3"] == 10**300 + 7


def test_a_webhook_after_the_admin_api_keeps_the_large_integers(identities: Identities) -> None:
    ada = stored(
        identities,
        exact(0, traits={"n": 2**53 + 1}),
        webhook(1, traits={"n": 2**53, "name": "Ada"}),
    )

    assert ada.traits == {"n": 2**53 + 1, "name": "Ada"}


def test_what_we_do_not_know_is_kept(identities: Identities) -> None:
    pronouns: Json = {"subject": "she", "since": None, "numbers": [1, 2.5, 2**70]}

    ada = stored(identities, exact(pronouns=pronouns, verifiable_addresses=[address(label="home")]))

    assert ada.unknown == {"pronouns": pronouns}
    assert isinstance(ada.verifiable_addresses, tuple)
    assert ada.verifiable_addresses[0].unknown == {"label": "home"}


def test_times_keep_their_microseconds(identities: Identities) -> None:
    precise = "2026-11-23T12:00:00.123456789Z"

    ada = stored(identities, webhook(created_at=precise, updated_at=precise))

    assert ada.created_at == ada.updated_at == datetime(2026, 11, 23, 12, 0, 0, 123456, UTC)


def test_a_tombstone_keeps_nothing_of_the_person(identities: Identities) -> None:
    stored(identities, exact(external_id="crm-7", pronouns="she"))
    with identities() as store:
        ada = store.find(ADA)
        assert ada is not None
        ada.mark_deleted(at=minutes(9), cause=cause(9))

    grave = kept(identities, ADA)

    assert (grave.id, grave.deleted_at, grave.version) == (ADA, minutes(9), 2)
    assert grave.traits is grave.verifiable_addresses is grave.metadata_admin is ABSENT
    assert (grave.external_id, grave.unknown, grave.exact_numbers) == (None, {}, None)


def test_a_tombstone_of_somebody_never_seen_is_kept(identities: Identities) -> None:
    with identities() as store:
        store.add(tombstone(minutes(2)))

    assert kept(identities, ADA).deleted_at == minutes(2)


def test_who_was_never_added_is_not_found(identities: Identities) -> None:
    stored(identities, snapshot_of(GRACE))

    with identities() as store:
        assert store.find(ADA) is None


def test_one_identity_is_one_object(identities: Identities) -> None:
    stored(identities, webhook())

    with identities() as store:
        assert store.find(ADA) is store.find(ADA)


def test_who_was_just_added_is_found(identities: Identities) -> None:
    ada = KratosIdentity.seen(webhook(), at=NOON, cause=cause())

    with identities() as store:
        assert store.find(ADA) is None
        store.add(ada)
        assert store.find(ADA) is ada


def test_who_was_added_unchanged_is_stored_too(identities: Identities) -> None:
    with identities() as store:
        store.add(met(webhook()))

    assert kept(identities, ADA).traits == webhook().traits


def test_changes_after_adding_are_stored(identities: Identities) -> None:
    with identities() as store:
        ada = KratosIdentity.seen(webhook(), at=NOON, cause=cause())
        store.add(ada)
        ada.update(webhook(1, traits={"name": "Ada King"}), at=minutes(1), cause=cause(2))

    assert kept(identities, ADA).traits == {"name": "Ada King"}
    assert kept(identities, ADA).version == 2


def test_changes_to_what_was_found_are_stored(identities: Identities) -> None:
    stored(identities, webhook(), snapshot_of(GRACE), snapshot_of(MARY))
    with identities() as store:
        for who in (MARY, ADA):
            found = store.find(who)
            assert found is not None
            found.update(snapshot_of(who, 1, state="inactive"), at=minutes(5), cause=cause(5))

    states = {who: kept(identities, who).state for who in (ADA, GRACE, MARY)}
    assert states == {ADA: "inactive", GRACE: "active", MARY: "inactive"}


def test_what_is_stored_already_changes_nothing(identities: Identities) -> None:
    ada = stored(identities, webhook())

    assert ada.changed == frozenset()
    assert ada.collect_events() == []


def test_what_was_not_committed_was_not_stored(identities: Identities) -> None:
    def change_her_mind() -> None:
        with identities() as store:
            store.add(KratosIdentity.seen(webhook(), at=NOON, cause=cause()))
            raise LookupError("Ada changed her mind")

    with pytest.raises(LookupError):
        change_her_mind()

    with identities() as store:
        assert store.find(ADA) is None
