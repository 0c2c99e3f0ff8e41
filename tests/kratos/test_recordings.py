"""The stand-in answers what a real Kratos was recorded to answer."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from kratos_sync.testing.kratos import InMemoryDocuments
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import many, person
from tests.recorded import FOLDER

RECORDED = json.loads((FOLDER / "admin.json").read_text())
EXCHANGES: list[dict[str, Any]] = [*RECORDED["pages"], *RECORDED["answers"].values()]


@pytest.fixture
def kratos() -> Iterator[AdminStandIn]:
    with AdminStandIn(recorded_people()) as stand_in:
        yield stand_in


def recorded_people() -> InMemoryDocuments:
    """Everybody in the recorded listing, with credentials where those were shown."""
    town = InMemoryDocuments(person for page in RECORDED["pages"] for person in page["body"])
    for exchange in RECORDED["answers"].values():
        if "credentials" in exchange["body"]:
            town.put(exchange["body"])
    return town


def get(stand_in: AdminStandIn, target: str, method: str = "GET") -> httpx.Response:
    return httpx.request(method, f"{stand_in.url}{target}", trust_env=False, timeout=10)


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange["request"][17:60])
def test_every_recorded_question_is_answered_as_recorded(
    kratos: AdminStandIn, exchange: dict[str, Any]
) -> None:
    answer = get(kratos, exchange["request"])

    assert answer.status_code == exchange["status"]
    assert answer.json() == exchange["body"]
    for name, value in exchange["headers"].items():
        assert answer.headers[name] == value


def test_the_recording_has_pages_and_refusals() -> None:
    assert len(RECORDED["pages"]) == 3
    assert {exchange["status"] for exchange in EXCHANGES} == {200, 400, 404}


def test_a_page_has_250_if_nothing_is_said_and_never_more_than_500(kratos: AdminStandIn) -> None:
    kratos.people = InMemoryDocuments(many(501))

    sizes = [
        len(get(kratos, f"/admin/identities{query}").json())
        for query in ("", "?page_size=250", "?page_size=500", "?page_size=501")
    ]

    assert sizes == [250, 250, 500, 500]


def test_ids_are_cut_at_the_size_of_a_page_without_a_word_in_the_body(
    kratos: AdminStandIn,
) -> None:
    people = many(300)
    kratos.people = InMemoryDocuments(people)
    query = "&".join(f"ids={each['id']}" for each in people)

    assert len(get(kratos, f"/admin/identities?{query}").json()) == 250
    assert len(get(kratos, f"/admin/identities?{query}&page_size=500").json()) == 300


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("page_size=many", "page_size"),
        ("ids=ada", "Invalid UUID value `ada` for parameter `ids`."),
        ("&".join(f"ids={uuid4()}" for _ in range(501)), "must not exceed 500"),
        (f"ids={uuid4()}&organization_id={uuid4()}", "cannot combine multiple filters"),
    ],
    ids=["page_size", "id", "501 ids", "two filters"],
)
def test_what_kratos_refuses_is_400(kratos: AdminStandIn, query: str, reason: str) -> None:
    answer = get(kratos, f"/admin/identities?{query}")

    assert answer.status_code == 400
    assert reason in answer.json()["error"]["reason"]


def test_a_deleted_identity_is_204_and_then_404(kratos: AdminStandIn) -> None:
    document = person()
    kratos.people = InMemoryDocuments([document])
    target = f"/admin/identities/{document['id']}"

    answers = [get(kratos, target, method) for method in ("GET", "DELETE", "DELETE", "GET")]

    assert [answer.status_code for answer in answers] == [200, 204, 404, 404]
    assert answers[1].content == b""
    assert answers[2].json() == RECORDED["answers"]["deleted"]["body"]


def test_credentials_are_shown_alone_and_not_listed(kratos: AdminStandIn) -> None:
    identity_id = UUID(kratos.people.listed(UUID(int=0), 1)[0][0].hex)

    assert "credentials" in get(kratos, f"/admin/identities/{identity_id}").json()
    assert "credentials" not in get(kratos, "/admin/identities").json()[0]
