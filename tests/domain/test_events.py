import json
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kratos_sync.domain.events import (
    EVENTS,
    AddressVerified,
    DomainEvent,
    IdentityDeleted,
    IdentityDeletionRequested,
    IdentityDiscovered,
    IdentityRegistered,
    IdentityStateChanged,
    IdentityTraitsChanged,
    KratosIdentityGone,
    KratosIdentityUpdated,
    KratosTemplateFailed,
    TraitChange,
    fact_id,
)
from kratos_sync.domain.fields import InvalidField
from kratos_sync.domain.identity import InvalidIdentity
from kratos_sync.domain.json_values import ABSENT, Json
from tests.domain.people import ADA, NOON, cause, document, webhook

names = st.text(max_size=8)
anything: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(names, anything, max_size=3)
times = st.integers(min_value=0, max_value=2**52).map(
    lambda microseconds: NOON + timedelta(microseconds=microseconds)
)
common = {
    "id": st.uuids(),
    "date_occurred": times,
    "identity_id": st.uuids(),
    "version": st.integers(min_value=1),
}
changes = st.builds(
    TraitChange,
    trait=names,
    old=anything | st.just(ABSENT),
    new=anything | st.just(ABSENT),
)
facts: st.SearchStrategy[DomainEvent] = st.one_of(
    st.builds(IdentityRegistered, **common, traits=objects, created_at=st.none() | times),
    st.builds(IdentityDiscovered, **common, traits=objects, created_at=st.none() | times),
    st.builds(IdentityTraitsChanged, **common, changes=st.lists(changes, max_size=3).map(tuple)),
    st.builds(AddressVerified, **common, via=names, value=names, verified_at=st.none() | times),
    st.builds(
        IdentityStateChanged,
        **common,
        old=st.none() | names,
        new=st.none() | names,
        state_changed_at=st.none() | times,
    ),
    st.builds(IdentityDeleted, **common),
    st.builds(KratosIdentityGone, id=st.uuids(), date_occurred=times, identity_id=st.uuids()),
    st.builds(KratosTemplateFailed, id=st.uuids(), date_occurred=times, hook=names),
    st.builds(
        IdentityDeletionRequested,
        id=st.uuids(),
        date_occurred=times,
        identity_id=st.uuids(),
        by=st.none() | names,
        erase=st.booleans(),
    ),
)


@settings(deadline=None)
@given(facts)
def test_a_fact_survives_the_ledger(fact: DomainEvent) -> None:
    payload = json.loads(json.dumps(fact.to_json()))

    assert EVENTS[fact.name].from_json(fact.id, fact.date_occurred, payload) == fact


def test_an_update_is_stored_as_the_webhook_that_brought_it() -> None:
    updated = KratosIdentityUpdated(cause(), NOON, webhook(pronouns="she"))

    assert updated.to_json() == {"identity": document(pronouns="she")}
    assert updated.subject == ADA
    assert KratosIdentityUpdated.from_json(cause(), NOON, updated.to_json()) == updated


def test_an_update_is_read_from_a_webhook_with_more_keys() -> None:
    body: dict[str, Json] = {"event": "login.after", "identity": document(), "flow": {"id": 1}}

    assert KratosIdentityUpdated.from_json(cause(), NOON, body).identity == webhook()


@pytest.mark.parametrize("body", [{}, {"identity": None}, {"identity": [document()]}])
def test_an_update_without_an_identity_is_invalid(body: dict[str, Json]) -> None:
    with pytest.raises(InvalidField, match=r"^identity is not an object$"):
        KratosIdentityUpdated.from_json(cause(), NOON, body)


def test_an_update_with_a_wrong_identity_is_an_invalid_identity() -> None:
    with pytest.raises(InvalidIdentity):
        KratosIdentityUpdated.from_json(cause(), NOON, {"identity": {"id": "ada"}})


@pytest.mark.parametrize("name", sorted(EVENTS.keys() - {"kratos_identity.updated"}))
def test_a_payload_without_an_identity_is_invalid(name: str) -> None:
    with pytest.raises(InvalidField):
        EVENTS[name].from_json(cause(), NOON, {"version": 1})


def test_every_event_stands_in_the_table_under_its_own_name() -> None:
    assert all(event.name == name for name, event in EVENTS.items())


def test_no_name_on_the_wire_ever_changes() -> None:
    assert list(EVENTS) == [
        "kratos_identity.updated",
        "kratos_identity.gone",
        "kratos_identity.hinted",
        "kratos_webhook.template_failed",
        "identity.registered",
        "identity.discovered",
        "identity.traits_changed",
        "identity.address_verified",
        "identity.state_changed",
        "identity.deleted",
        "identity.logged_in",
        "identity.recovered",
        "identity.credentials_changed",
        "identity.deletion_requested",
    ]


def test_an_absent_trait_is_a_missing_key_and_a_null_one_is_null() -> None:
    assert TraitChange("phone", ABSENT, None).to_json() == {"trait": "phone", "new": None}


def test_an_event_shows_no_personal_data() -> None:
    secret = "ada@example.org"
    events = [
        KratosIdentityUpdated(cause(), NOON, webhook()),
        IdentityRegistered(cause(), NOON, ADA, 1, {"email": secret}, NOON),
        IdentityDiscovered(cause(), NOON, ADA, 1, {"email": secret}, NOON),
        IdentityTraitsChanged(cause(), NOON, ADA, 2, (TraitChange("email", secret, secret),)),
        AddressVerified(cause(), NOON, ADA, 2, "email", secret, NOON),
    ]

    assert secret not in repr(events)


@settings(deadline=None)
@given(st.uuids(), names, names)
def test_a_fact_id_follows_from_its_cause(cause: UUID, what: str, other: str) -> None:
    fact = fact_id(cause, what)

    assert fact == fact_id(cause, what)
    assert fact.version == 7
    assert fact.variant == "specified in RFC 4122"
    assert fact.int >> 80 == cause.int >> 80
    assert (fact == fact_id(cause, other)) is (what == other)


def test_facts_are_ordered_by_the_time_of_their_causes() -> None:
    ids = [fact_id(cause(number), "identity.registered") for number in range(1, 50)]

    assert ids == sorted(ids)


def test_one_moment_has_one_id_for_each_cause() -> None:
    same_millisecond = [UUID(int=cause().int + number) for number in range(50)]

    assert len({fact_id(each, "identity.deleted") for each in same_millisecond}) == 50


def test_times_of_a_fact_are_exact_to_the_microsecond() -> None:
    at = NOON + timedelta(microseconds=1)

    assert AddressVerified(cause(), at, ADA, 2, "sms", "+36", at).to_json()["verified_at"] == (
        "2026-11-23T12:00:00.000001Z"
    )
