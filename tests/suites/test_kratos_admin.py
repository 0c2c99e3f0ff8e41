"""What Kratos' Admin API is to the application: its fake, and its adapter before a stand-in."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from kratos_sync.application.ports.kratos import KratosAdmin
from kratos_sync.domain.json_values import ABSENT
from kratos_sync.infrastructure.kratos.admin_api import HttpKratosAdmin
from kratos_sync.testing.kratos import InMemoryDocuments, InMemoryKratos
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import many, person


@dataclass
class Kratos:
    """The port, and the people behind it."""

    admin: KratosAdmin
    town: InMemoryDocuments
    double: InMemoryKratos | AdminStandIn

    def listing(self) -> list[list[dict[str, Any]]]:
        """Every page, from first to last."""
        pages, token = [], None
        while True:
            page = self.admin.page(token)
            pages.append(json.loads(page.identities))
            token = page.next
            if token is None:
                return pages


@pytest.fixture(params=["in memory", "over HTTP"])
def kratos(request: pytest.FixtureRequest) -> Iterator[Kratos]:
    town = InMemoryDocuments()
    if request.param == "in memory":
        fake = InMemoryKratos(town)
        yield Kratos(fake, town, fake)
        return
    with AdminStandIn(town) as stand_in:
        admin = HttpKratosAdmin(SecretStr(stand_in.url))
        yield Kratos(admin, town, stand_in)
        admin.close()


def ids(documents: list[dict[str, Any]]) -> list[str]:
    return [document["id"] for document in documents]


def test_a_listing_has_every_identity_once_in_the_order_of_ids(kratos: Kratos) -> None:
    people = many(1100)
    for document in reversed(people):
        kratos.town.put(document)

    pages = kratos.listing()

    assert [len(page) for page in pages] == [500, 500, 100]
    assert ids([each for page in pages for each in page]) == ids(people)


def test_a_page_that_is_just_full_is_the_last(kratos: Kratos) -> None:
    for document in many(500):
        kratos.town.put(document)

    assert [len(page) for page in kratos.listing()] == [500]


def test_a_kratos_without_anybody_has_one_empty_page(kratos: Kratos) -> None:
    assert kratos.listing() == [[]]


def test_a_page_says_exactly_what_kratos_holds_without_credentials(kratos: Kratos) -> None:
    document = person(
        traits={"email": "Ada@example.org", "loyalty_number": 9007199254740993, "ratio": 0.1},
        metadata_admin={"plan": "gold"},
    )
    kratos.town.put({**document, "credentials": {}})

    assert kratos.listing() == [[document]]


def test_an_identity_deleted_between_two_pages_is_not_on_the_second(kratos: Kratos) -> None:
    people = many(600)
    for document in people:
        kratos.town.put(document)

    def remove_the_last(requests: int) -> None:
        if requests == 2:
            kratos.town.remove(UUID(people[-1]["id"]))

    kratos.double.before = remove_the_last

    assert ids(kratos.listing()[1]) == ids(people[500:-1])


def test_a_listing_goes_on_when_the_last_of_a_page_is_removed(kratos: Kratos) -> None:
    people = many(600)
    for document in people:
        kratos.town.put(document)
    first = kratos.admin.page(None)
    kratos.town.remove(UUID(people[499]["id"]))

    assert ids(json.loads(kratos.admin.page(first.next).identities)) == ids(people[500:])


def test_an_identity_created_behind_the_cursor_is_missed(kratos: Kratos) -> None:
    for document in many(501):
        kratos.town.put(document)
    first = kratos.admin.page(None)
    kratos.town.put(person(UUID(int=1)))

    assert len(json.loads(kratos.admin.page(first.next).identities)) == 1


def test_a_token_that_is_none_is_refused(kratos: Kratos) -> None:
    with pytest.raises(ValueError, match="token"):
        kratos.admin.page("after\r\nX-Evil: 1")


def test_an_identity_is_found_with_what_only_administrators_see(kratos: Kratos) -> None:
    document = person(traits={"loyalty_number": 9007199254740993}, metadata_admin={"plan": "gold"})
    kratos.town.put(document)

    found = kratos.admin.find(UUID(document["id"]))

    assert found is not None
    assert found.is_exact
    assert found.traits == {"loyalty_number": 9007199254740993}
    assert found.metadata_admin == {"plan": "gold"}
    assert found.document == document


def test_credentials_are_dropped(kratos: Kratos) -> None:
    identity_id = kratos.town.put({**person(), "credentials": {"oidc": {"identifiers": ["x"]}}})

    found = kratos.admin.find(identity_id)

    assert found is not None
    assert "credentials" not in found.document
    assert "credentials" not in found.unknown


def test_an_identity_that_is_not_there_is_none(kratos: Kratos) -> None:
    assert kratos.admin.find(uuid4()) is None


def test_absent_is_not_null(kratos: Kratos) -> None:
    identity_id = kratos.town.put(person(verifiable_addresses=..., recovery_addresses=...))

    found = kratos.admin.find(identity_id)

    assert found is not None
    assert found.verifiable_addresses is ABSENT
    assert found.metadata_public is None


@pytest.mark.parametrize("number", [0, 1, 79, 80, 81, 500])
def test_many_are_found_at_once_and_none_is_cut_off(kratos: Kratos, number: int) -> None:
    people = [kratos.town.put(document) for document in many(number)]

    found = kratos.admin.find_all(people)

    assert list(found) == people
    assert all(found[each].id == each and found[each].is_exact for each in people)


def test_deleted_identities_are_left_out_of_many(kratos: Kratos) -> None:
    here, gone = kratos.town.put(person()), uuid4()

    assert list(kratos.admin.find_all([gone, here, gone, here])) == [here]


def test_more_than_five_hundred_are_not_asked_for_at_once(kratos: Kratos) -> None:
    with pytest.raises(ValueError, match="500"):
        kratos.admin.find_all([uuid4() for _ in range(501)])


def test_a_deleted_identity_cannot_be_deleted_again(kratos: Kratos) -> None:
    identity_id = kratos.town.put(person())

    assert kratos.admin.delete(identity_id)
    assert kratos.admin.find(identity_id) is None
    assert kratos.admin.find_all([identity_id]) == {}
    assert not kratos.admin.delete(identity_id)


ODD = "Ada\x00\ud800Lovelace 🦉\\u0000"
STORABLE = "Ada\ufffd\ufffdLovelace 🦉\\u0000"


def test_characters_that_jsonb_refuses_are_replaced(kratos: Kratos) -> None:
    identity_id = kratos.town.put(person(traits={"name": ODD, ODD: "name"}))
    traits = {"name": STORABLE, STORABLE: "name"}

    found = kratos.admin.find(identity_id)
    several = kratos.admin.find_all([identity_id])

    assert found is not None
    assert found.traits == traits
    assert several[identity_id].traits == traits
    assert kratos.listing()[0][0]["traits"] == traits
