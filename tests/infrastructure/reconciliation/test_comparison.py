"""What the database alone takes for different, and what it cannot read."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.application.json_body import decode
from kratos_sync.application.ports.kratos import KratosRefused
from kratos_sync.application.ports.reconciliation import ListingUnordered
from kratos_sync.domain.fields import to_rfc3339
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT, same
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.infrastructure.identities.rows import STORE, to_arrays
from kratos_sync.infrastructure.kratos.admin_api import HttpKratosAdmin
from kratos_sync.infrastructure.postgres.engine import driver_of
from kratos_sync.infrastructure.reconciliation.comparison import FIRST, candidates_of, compare
from kratos_sync.testing.kratos import Document, InMemoryDocuments
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import many, person
from tests.kratos.population import Population
from tests.recorded import thirteen_calls, two_hundred_lives

NOW = datetime(2026, 11, 23, 13, tzinfo=UTC)


@pytest.fixture
def cursor(engine: Engine) -> Iterator["psycopg.RawCursor[Any]"]:
    with engine.connect() as connection:
        yield psycopg.RawCursor(driver_of(connection))


def page_of(documents: list[Document]) -> bytes:
    ordered = sorted(documents, key=lambda document: str(document["id"]))
    return json.dumps(ordered).encode()


def store(cursor: "psycopg.RawCursor[Any]", page: bytes) -> list[UUID]:
    """Store a page as the domain takes it in."""
    identities = [Identity.from_admin_api(document) for document in json.loads(page)]
    rows = [KratosIdentity.seen(each, at=NOW, cause=FIRST) for each in identities]
    cursor.execute(STORE, to_arrays(rows, [0] * len(rows)), binary=True)
    return [each.id for each in identities]


LISTINGS = {
    "two hundred lives": lambda: list(two_hundred_lives().listing.values()),
    "everybody whom an administrator made too": lambda: list(thirteen_calls().listing.values()),
    "a population": lambda: [json.loads(text) for _, text in Population(300).listed(FIRST, 300)],
    "made-up people": lambda: many(50),
}


@pytest.mark.parametrize("listing", LISTINGS)
def test_the_database_finds_no_difference_in_copies_of_the_listing(
    cursor: "psycopg.RawCursor[Any]", listing: str
) -> None:
    page = page_of(LISTINGS[listing]())
    ids = store(cursor, page)

    assert len(ids) > 5
    assert candidates_of(cursor, page, ids) == {}


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
moments = st.datetimes(
    datetime(2020, 1, 1),  # noqa: DTZ001  # hypothesis adds the zone
    datetime(2030, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
).map(to_rfc3339)
addresses = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.uuids().map(str),
            "via": st.sampled_from(["email", "sms"]),
            "value": texts | st.sampled_from(["ä@example.org", "z@example.org", "Z@example.org"]),
            "verified": st.booleans(),
            "created_at": moments,
            "updated_at": moments,
        },
        optional={"verified_at": moments, "status": st.sampled_from(["pending", "completed"])},
    ),
    max_size=4,
    unique_by=lambda address: (address["via"], address["value"]),
)
identities = st.fixed_dictionaries(
    {
        "id": st.uuids(version=4).map(str),
        "schema_id": texts,
        "schema_url": texts,
        "state": st.sampled_from(["active", "inactive"]),
        "traits": any_json,
        "metadata_public": any_json,
        "metadata_admin": any_json,
        "created_at": moments,
        "updated_at": moments,
        "organization_id": st.none() | st.uuids().map(str),
        "verifiable_addresses": addresses,
    },
    optional={
        "external_id": texts,
        "state_changed_at": moments,
        "region": texts,
        "pronouns": any_json,
        "recovery_addresses": addresses.map(
            lambda found: [
                {
                    name: value
                    for name, value in each.items()
                    if name not in {"verified", "verified_at", "status"}
                }
                for each in found
            ]
        ),
    },
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(identities, min_size=1, max_size=8, unique_by=lambda each: each["id"]), st.randoms()
)
def test_the_database_finds_no_difference_in_copies_of_any_identities(
    cursor: "psycopg.RawCursor[Any]", people: list[Document], random: Any
) -> None:
    cursor.execute(b"DELETE FROM kratos_sync.kratos_identities")
    ids = store(cursor, page_of(people))
    for document in people:
        random.shuffle(document["verifiable_addresses"])

    assert candidates_of(cursor, page_of(people), ids) == {}


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(identities, identities)
def test_the_database_finds_exactly_the_differences_of_the_domain(
    cursor: "psycopg.RawCursor[Any]", one: Document, other: Document
) -> None:
    cursor.execute(b"DELETE FROM kratos_sync.kratos_identities")
    store(cursor, page_of([one]))
    for field in other:
        changed = {**one, field: other[field]} if field != "id" else one
        page = page_of([changed])
        said, before = (Identity.from_admin_api(each) for each in (changed, one))
        differ = said.updated_at != before.updated_at or not all(
            same(said.parts().get(part, ABSENT), before.parts().get(part, ABSENT))
            for part in said.parts().keys() | before.parts()
        )
        assert bool(candidates_of(cursor, page, [before.id])) == differ


ODD_SPELLINGS: list[dict[str, Any]] = [
    {"created_at": "2026-01-02T03:04:05.678901999Z"},
    {"created_at": "2026-01-02T05:04:05.678901+02:00"},
    {"state_changed_at": "0001-01-01T00:00:00Z"},
    {"verifiable_addresses": ...},
    {"metadata_public": {"n": 9007199254740993, "x": 1e22}},
    {"traits": {"name": "Ada\u2028 🦉"}},
    {"pronouns": "she", "credentials": {}},
]


@pytest.mark.parametrize("odd", ODD_SPELLINGS, ids=", ".join)
def test_an_odd_spelling_is_no_difference(
    cursor: "psycopg.RawCursor[Any]", odd: dict[str, Any]
) -> None:
    page = page_of([person(**odd)])
    store(cursor, page)

    compared = compare(cursor, page, FIRST, NOW, is_last=True)

    assert (compared.known, compared.differing, compared.unreadable) == (1, [], 0)


def test_characters_that_are_replaced_here_are_no_difference(
    cursor: "psycopg.RawCursor[Any]",
) -> None:
    ada = person(traits={"name": "Ada\0Lovelace\ud800", "\0": "\\u0000"})
    with AdminStandIn(InMemoryDocuments([ada])) as kratos:
        admin = HttpKratosAdmin(SecretStr(kratos.url))
        page = admin.page(None).identities
        admin.close()
    documents = decode(json.dumps([ada]).encode()).value
    ids = store(cursor, json.dumps(documents).encode())

    assert candidates_of(cursor, page, ids) == {}


UNREADABLE = {
    "beyond a double": b"1e400",
    "beyond a numeric": b"1e200000",
    "deep": b"[" * 200 + b"]" * 200,
    "deeper than a parser follows": b"[" * 20_000 + b"]" * 20_000,
    "deep in objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_an_unreadable_identity_keeps_no_other_from_being_read(
    cursor: "psycopg.RawCursor[Any]", what: str
) -> None:
    people = many(5)
    store(cursor, page_of(people[:4]))
    spoilt = {UUID(people[number]["id"]): UNREADABLE[what] for number in (1, 4)}
    people[2]["state"] = "inactive"

    class Spoilt(InMemoryDocuments):
        def chosen(self, ids: Any) -> list[tuple[UUID, bytes]]:
            return [(each, self._spoilt(each, text)) for each, text in super().chosen(ids)]

        def _spoilt(self, each: UUID, text: bytes) -> bytes:
            return b'{"odd":' + spoilt[each] + b"," + text[1:] if each in spoilt else text

    with AdminStandIn(Spoilt(people)) as kratos:
        admin = HttpKratosAdmin(SecretStr(kratos.url))
        page = admin.page(None)
        admin.close()
    compared = compare(cursor, page.identities, FIRST, NOW, is_last=True)

    assert [each.identity.id for each in compared.differing] == [UUID(people[2]["id"])]
    assert (len(compared.ids), compared.known, compared.unreadable) == (5, 4, 2)


@pytest.mark.parametrize("listing", [b"[1]", b'[{"name":"Ada"}]', b'[{"id":"ada"}]', b'{"id":1}'])
def test_a_listing_of_something_else_is_refused(
    cursor: "psycopg.RawCursor[Any]", listing: bytes
) -> None:
    with pytest.raises(KratosRefused):
        compare(cursor, listing, FIRST, NOW, is_last=True)


def test_ids_that_do_not_grow_are_out_of_order(cursor: "psycopg.RawCursor[Any]") -> None:
    one, two = many(2)
    for page in ([two, one], [one, one]):
        with pytest.raises(ListingUnordered):
            compare(cursor, json.dumps(page).encode(), FIRST, NOW, is_last=True)
    with pytest.raises(ListingUnordered):
        compare(cursor, page_of([one]), UUID(two["id"]), NOW, is_last=True)
