"""Identities that Kratos does not list any more, when a reconciliation refused to delete them."""

import re
from collections.abc import Iterator
from http import HTTPStatus
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.application.ports.operations import OperationFilter
from kratos_sync.domain.events import KratosIdentityGone
from kratos_sync.infrastructure.container import Container
from tests.api.http.console.conftest import Visit
from tests.api.http.console.test_pages import OPERATOR, PRIVACY, VIEWER, ended, sent
from tests.api.http.console.visiting import Visitor
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import many
from tests.suites.reconciling import World, world_on_postgres

HEADING = re.compile(r'<h2 id="deletions">([\d,]+) identities')
LISTED = re.compile(r'<td><a class="id" href="/identity/([0-9a-f-]{36})"')


@pytest.fixture
def world(engine: Engine) -> World:
    return world_on_postgres(engine)


@pytest.fixture(autouse=True)
def kratos(world: World, container: Container) -> Iterator[AdminStandIn]:
    settings = container.settings()
    with AdminStandIn(world.town) as kratos:
        url = {"kratos_admin_url": SecretStr(kratos.url)}
        container.settings.override(settings.model_copy(update=url))
        yield kratos


def lose(world: World, number: int) -> set[UUID]:
    """Have people here and in Kratos, and so many more that Kratos loses."""
    people = many(number + 1)
    world.copy(*people)
    lost = {UUID(document["id"]) for document in people[1:]}
    for identity_id in lost:
        world.town.remove(identity_id)
    return lost


def listed(page: str) -> list[UUID]:
    return [UUID(each) for each in LISTED.findall(page)]


def refused(visitor: Visitor) -> str:
    """The page after a reconciliation that refused to delete."""
    assert "at most" in ended(visitor, sent(visitor, "/kratos/reconcile"))
    return visitor.get("/kratos").text


def test_whom_kratos_has_and_nothing_is_recorded_of_is_fetched_from_where_he_was_searched(
    visit: Visit, visitor: Visitor, world: World
) -> None:
    (missing,) = many(1)
    world.town.put(missing)
    known, place = {"known": missing["id"]}, f"/identity/{missing['id']}"
    offered = f'action="{place}/sync"'
    assert offered not in visit(VIEWER).post("/identity", known).text
    assert offered in visitor.post("/identity", known).text
    assert offered not in visitor.post("/identity", {"known": "she@example.org"}).text
    assert "completed" in ended(visitor, sent(visitor, f"{place}/sync"))
    assert visitor.post("/identity", known).headers["location"] == place


def test_they_are_listed_without_personal_data(
    visit: Visit, visitor: Visitor, world: World
) -> None:
    lost = lose(world, 11)
    page = refused(visitor)
    assert HEADING.findall(page) == ["11"]
    assert set(listed(page)) == lost
    for operator in (VIEWER, OPERATOR, PRIVACY):
        assert "example.org" not in visit(operator).get("/kratos").text
    assert len(world.alive()) == 12


def test_one_is_deleted_here_alone_if_kratos_does_not_have_it(
    visitor: Visitor, world: World
) -> None:
    lost = lose(world, 11)
    one = listed(refused(visitor))[0]
    done = ended(visitor, sent(visitor, f"/identity/{one}/sync"))
    assert "deleted: 1" in done
    assert set(listed(visitor.get("/kratos").text)) == lost - {one}

    world.consume()

    assert len(world.alive()) == 11
    assert one not in world.alive()
    gone = [e.subject for e in world.ledger.events.values() if e.name == KratosIdentityGone.name]
    assert gone == [one]


def test_one_that_kratos_has_after_all_is_kept_and_not_listed_any_more(
    visitor: Visitor, world: World
) -> None:
    lost = lose(world, 11)
    one = listed(refused(visitor))[0]
    world.town.put({**many(1)[0], "id": str(one)})

    ended(visitor, sent(visitor, f"/identity/{one}/sync"))
    world.consume()

    assert one in world.alive()
    assert set(listed(visitor.get("/kratos").text)) == lost - {one}


def test_all_are_deleted_where_that_many_are_allowed(visitor: Visitor, world: World) -> None:
    lose(world, 11)
    page = refused(visitor)
    number = re.search(r'name="allow_deletes" value="(\d+)"', page)
    assert number is not None

    ended(visitor, sent(visitor, "/kratos/reconcile", allow_deletes=number[1]))
    world.consume()

    assert len(world.alive()) == 1
    after = visitor.get("/kratos").text
    assert listed(after) == []
    assert "allow_deletes" not in after


def test_decided_one_by_one_nothing_is_left_to_allow(visitor: Visitor, world: World) -> None:
    lose(world, 11)
    for one in listed(refused(visitor)):
        ended(visitor, sent(visitor, f"/identity/{one}/sync"))
    page = visitor.get("/kratos").text
    assert HEADING.findall(page) == []
    assert "allow_deletes" not in page


def test_who_they_are_is_shown_for_a_reason_that_is_recorded_with_their_ids(
    visit: Visit, visitor: Visitor, world: World, container: Container
) -> None:
    lost = lose(world, 11)
    refused(visitor)
    privacy = visit(PRIVACY)

    without = privacy.post("/kratos/unlisted", {"reason": " "})
    assert (without.status_code, "example.org" in without.text) == (HTTPStatus.BAD_REQUEST, False)
    assert visit(OPERATOR).post("/kratos/unlisted", {"reason": "x"}).status_code == (
        HTTPStatus.FORBIDDEN
    )
    page = privacy.post("/kratos/unlisted", {"reason": "an import was undone"})

    assert page.text.count("@example.org") >= 11
    (operation,) = container.operations().newest(OperationFilter(operation="view"), 9)
    assert (operation.by, operation.reason) == ("petra", "an import was undone")
    assert operation.scope == {"identities": sorted(map(str, lost))}
    audit = visitor.get("/audit").text
    assert "identities (11)" in audit
    assert "example.org" not in audit


def test_only_who_may_decides(visit: Visit, visitor: Visitor, world: World) -> None:
    lose(world, 11)
    refused(visitor)
    forms = {
        each.name: [
            form in visit(each).get("/kratos").text
            for form in ("/sync", "/kratos/unlisted", "allow_deletes")
        ]
        for each in (VIEWER, OPERATOR, PRIVACY)
    }
    assert forms == {
        "vera": [False, False, False],
        "olga": [True, False, False],
        "petra": [False, True, False],
    }
    assert "allow_deletes" in visitor.get("/kratos").text


def test_many_are_shown_page_by_page_each_once(visitor: Visitor, world: World) -> None:
    lost = lose(world, 120)
    refused(visitor)
    seen, path = list[UUID](), "/kratos"
    for _ in range(9):
        page = visitor.get(path).text
        assert HEADING.findall(page) == ["120"]
        seen += listed(page)
        more = re.search(r'href="(/kratos\?after=[^"]+)"', page)
        if more is None:
            break
        path = more[1]
    assert (len(seen), set(seen)) == (120, lost)


def test_the_names_are_those_of_the_page(visitor: Visitor, world: World) -> None:
    lose(world, 60)
    first = listed(refused(visitor))
    form = {"reason": "to see", "after": str(first[-1])}
    second = listed(visitor.post("/kratos/unlisted", form).text)
    assert (len(first), len(second)) == (50, 10)
    assert set(first).isdisjoint(second)


@pytest.mark.parametrize("after", ["nothing", "1", "%00"])
def test_a_page_that_does_not_exist_is_explained(visitor: Visitor, after: str) -> None:
    assert visitor.get(f"/kratos?after={after}").status_code == HTTPStatus.BAD_REQUEST
    assert visitor.post("/kratos/unlisted", {"after": after}).status_code == HTTPStatus.BAD_REQUEST
    assert visitor.get(f"/kratos?after={uuid4()}").status_code == HTTPStatus.OK


def test_a_listing_of_nobody_offers_no_deletion_of_all(visitor: Visitor, world: World) -> None:
    lose(world, 11)
    for identity_id in list(world.town.documents):
        world.town.remove(identity_id)
    ended(visitor, sent(visitor, "/kratos/reconcile"))
    page = visitor.get("/kratos").text
    assert "Kratos lists no identity" in page
    assert len(listed(page)) == 12
    assert "allow_deletes" not in page
