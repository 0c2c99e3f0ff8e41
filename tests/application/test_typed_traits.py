"""Traits as a type of the application's own."""

import json
from datetime import UTC, datetime
from typing import Any, Literal, NotRequired, TypedDict
from uuid import uuid4

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kratos_sync import Identity, IdentityRegistered, TraitsDoNotFit, traits_of
from kratos_sync.application.errors import explain
from kratos_sync.domain.json_values import Json


class Name(TypedDict):
    first: NotRequired[str]
    last: str


class Traits(TypedDict):
    email: str
    name: NotRequired[Name]
    seats: NotRequired[int]
    rating: NotRequired[float]
    newsletter: NotRequired[bool]
    plan: NotRequired[Literal["free", "team"]]
    terms: NotRequired[Literal[True]]
    born: NotRequired[str | None]
    names: NotRequired[list[Name]]
    labels: NotRequired[dict[str, int]]
    reference: NotRequired[str | int]
    größe: NotRequired[float]  # noqa: PLC2401  # a trait may have such a name
    anything: NotRequired[object]
    rest: NotRequired[list[object]]


def registered(**traits: Json) -> IdentityRegistered:
    """An event as the ledger gives it back, with other strings than those in the code."""
    recorded = json.loads(json.dumps(traits))
    now = datetime.now(UTC)
    return IdentityRegistered(uuid4(), now, uuid4(), 1, recorded, now)


def problem(**traits: Json) -> str:
    with pytest.raises(TraitsDoNotFit) as raised:
        traits_of(registered(**traits), Traits)
    return str(raised.value)


FITTING: dict[str, Json] = {
    "email": "ada@example.org",
    "name": {"last": "Lovelace"},
    "seats": 3,
    "rating": 4.5,
    "newsletter": False,
    "plan": "team",
    "terms": True,
    "born": None,
    "names": [{"first": "Ada", "last": "Lovelace"}, {"last": "Byron"}],
    "labels": {"desk": 4},
    "reference": 7,
    "größe": 1.65,
    "anything": {"at": ["all"]},
    "rest": [1, None, "two"],
}


def test_traits_that_fit_are_those_of_the_event() -> None:
    assert traits_of(registered(**FITTING), Traits) == FITTING


def test_what_is_optional_may_be_missing() -> None:
    assert traits_of(registered(email="ada@example.org"), Traits) == {"email": "ada@example.org"}


def test_traits_that_the_type_does_not_name_are_kept() -> None:
    traits = {"email": "ada@example.org", "added_next_year": 1}
    assert traits_of(registered(**traits), Traits) == traits


def test_a_number_without_a_fraction_is_an_integer() -> None:
    traits = traits_of(registered(email="", seats=3.0, rating=4), Traits)

    assert isinstance(traits["seats"], int)
    assert traits["rating"] == 4


def test_an_identity_has_typed_traits_too() -> None:
    identity = Identity.from_kratos({"id": str(uuid4()), "traits": {"email": "ada@example.org"}})
    assert traits_of(identity, Traits)["email"] == "ada@example.org"


def test_the_event_stays_as_it_is() -> None:
    event = registered(**FITTING)

    traits_of(event, Traits)["name"]["last"] = "Byron"

    assert event.traits == FITTING


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"email": None}, "email is no text"),
        ({"email": 5}, "email is no text"),
        ({"name": {"first": "Ada"}}, "name.last is missing"),
        ({"name": "Ada"}, "name is no object"),
        ({"name": None}, "name is no object"),
        ({"seats": 3.5}, "seats is no integer"),
        ({"seats": True}, "seats is no integer"),
        ({"seats": "3"}, "seats is no integer"),
        ({"rating": "good"}, "rating is no number"),
        ({"newsletter": 1}, "newsletter is no boolean"),
        ({"plan": "secret"}, "plan is none of the values that are allowed"),
        ({"terms": False}, "terms is none of the values that are allowed"),
        ({"terms": 1}, "terms is none of the values that are allowed"),
        ({"born": 1815}, "born is no text"),
        ({"names": {"last": "Byron"}}, "names is no list"),
        ({"names": [{"last": "Byron"}, {"last": 2}]}, "names[1].last is no text"),
        ({"labels": {"ada@example.org": "4"}}, "labels[…] is no integer"),
        ({"reference": [7]}, "reference fits none of its types"),
        ({"größe": "165"}, "größe is no number"),
        ({"rest": {}}, "rest is no list"),
    ],
)
def test_the_first_trait_that_does_not_fit_is_named_with_the_reason(
    changes: dict[str, Json], expected: str
) -> None:
    assert problem(**{**FITTING, **changes}) == f"the traits are no Traits: {expected}"


def test_a_trait_that_is_required_may_not_be_missing() -> None:
    assert problem(seats=1) == "the traits are no Traits: email is missing"


@pytest.mark.parametrize("document", [{}, {"traits": None}, {"traits": "ada@example.org"}])
def test_an_identity_may_have_no_traits(document: dict[str, Any]) -> None:
    identity = Identity.from_kratos({"id": str(uuid4()), **document})

    with pytest.raises(TraitsDoNotFit, match="there are no traits"):
        traits_of(identity, Traits)


def test_only_a_typed_dict_can_be_asked_for() -> None:
    with pytest.raises(TypeError, match="dict is no TypedDict"):
        traits_of(registered(), dict)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
SECRET = "ada@example.org"


def with_secret(value: Json) -> Json:
    """The value with a secret in each place where a value or a key of a person's could be."""
    match value:
        case str():
            return SECRET
        case list():
            return [with_secret(each) for each in value]
        case dict():
            return {f"{SECRET} {key}": with_secret(each) for key, each in value.items()}
    return value


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FITTING, VALUES)))
def test_no_value_is_in_the_error_that_the_ledger_keeps(traits: dict[str, Json]) -> None:
    secret = {name: with_secret(value) for name, value in traits.items()}
    failure: TraitsDoNotFit | None = None
    try:
        traits_of(registered(**secret), Traits)
    except TraitsDoNotFit as error:
        failure = error
    assume(failure is not None)
    assert SECRET not in explain(failure)
    assert failure.__context__ is None
