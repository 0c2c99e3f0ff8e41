"""Lists that go on: each page leads to the next, and nothing is there twice."""

import re
from html import unescape
from http import HTTPStatus

import pytest
from sqlalchemy import Engine

from kratos_sync.api.http.console import failures
from kratos_sync.api.http.console.failures import MOST_SHOWN
from kratos_sync.api.http.console.identity import MOST_EVENTS
from tests.api.http.client import ADA
from tests.api.http.console.visiting import Visitor, fail, group_of
from tests.infrastructure.ledger.rows import SOMEBODY, add_event


def test_all_dead_letters_of_a_group_are_paged(visitor: Visitor, engine: Engine) -> None:
    failed = [fail(engine) for _ in range(MOST_SHOWN + 2)]
    assert set(paged(visitor, group_of(visitor))) == set(map(str, failed))


def test_all_groups_are_paged_and_each_is_found(
    visitor: Visitor, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "MOST_SHOWN", 2)
    monkeypatch.setattr(failures, "MOST_GROUPS", 3)
    monkeypatch.setattr(failures, "MOST_SEARCHED", 8)
    for number in range(5):
        fail(engine, shape=f"of kind {number}")
    found: list[str] = []
    more: str | None = "/failures"
    while more:
        page = visitor.get(more).text
        found += set(re.findall(r'href="(/failures/[0-9a-f]{16})"', page))
        following = re.search(r'href="([^"]+)">Smaller ones', page)
        more = following and unescape(following[1])
    assert len(found) == len(set(found)) == 5
    assert [visitor.get(each).status_code for each in found] == [HTTPStatus.OK] * 5
    assert visitor.get("/failures/0123456789abcdef").status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("skip", ["-1", "x", "²", "200", "10000", "9" * 5000])
def test_no_group_is_skipped_that_cannot_be_paged_to(visitor: Visitor, skip: str) -> None:
    answer = visitor.get(f"/failures?skip={skip}")
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert "There is no such page." in answer.text


def test_all_events_of_an_identity_are_paged(visitor: Visitor, engine: Engine) -> None:
    recorded = [add_event(engine) for _ in range(MOST_EVENTS + 2)]
    shown = paged(visitor, f"/identity/{SOMEBODY}")
    assert set(shown) == set(map(str, recorded))


def paged(visitor: Visitor, path: str) -> list[str]:
    """The events on a page and on all that follow it."""
    found: list[str] = []
    more: str | None = path
    while more:
        page = visitor.get(more)
        assert page.status_code == HTTPStatus.OK
        found += re.findall(r'href="/events/([0-9a-f-]{36})"', page.text)
        following = re.search(r'href="([^"]+)">Earlier ones', page.text)
        more = following and unescape(following[1])
    assert len(found) == len(set(found))
    return found


@pytest.mark.parametrize("before", ["yesterday", "2026-11-29T10:00:00 x", f"2026-11-29 {ADA}"])
def test_a_page_that_there_is_not_is_said_to_be_none(visitor: Visitor, before: str) -> None:
    answer = visitor.get(f"/events?before={before}")
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert "There is no such page." in answer.text
