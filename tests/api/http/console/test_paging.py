"""Lists that go on: each page leads to the next, and nothing is there twice."""

import re
from html import unescape
from http import HTTPStatus

import pytest
from sqlalchemy import Engine

from kratos_sync.api.http.console.failures import MOST_SHOWN
from kratos_sync.api.http.console.identity import MOST_EVENTS
from tests.api.http.client import ADA
from tests.api.http.console.visiting import Visitor, fail, group_of
from tests.infrastructure.ledger.rows import SOMEBODY, add_event


def test_all_dead_letters_of_a_group_are_paged(visitor: Visitor, engine: Engine) -> None:
    failed = [fail(engine) for _ in range(MOST_SHOWN + 2)]
    assert set(paged(visitor, group_of(visitor))) == set(map(str, failed))


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
