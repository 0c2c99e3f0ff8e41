"""The page of failures: what was tried before, what runs, and what can be done about a group."""

import re
from datetime import timedelta
from urllib.parse import quote
from uuid import uuid4

from sqlalchemy import Engine

from kratos_sync.application.ports.operations import How, OperationRequest, Progress
from kratos_sync.infrastructure.container import Container
from tests.api.http.console.conftest import Visit
from tests.api.http.console.test_one_source import words
from tests.api.http.console.test_pages import ended, one, sent
from tests.api.http.console.visiting import SYNC, VIEWER, Visitor, fail, group_of, shown
from tests.infrastructure.ledger.rows import add_delivery

FAIL_AGAIN = """
    UPDATE kratos_sync.deliveries SET failed_at = now(), attempts = 12
"""


def test_a_group_says_how_often_it_was_retried_before(visitor: Visitor, engine: Engine) -> None:
    for _ in range(2):
        fail(engine)
    page = group_of(visitor)
    assert "Retried before never" in words(visitor.get(page).text)
    for _ in range(2):
        said = {**shown(visitor, page), "which": "all"}
        ended(visitor, sent(visitor, f"{page}/retry", **said))
        with engine.begin() as connection:
            connection.exec_driver_sql(FAIL_AGAIN)
    assert "Retried before 4 times" in words(visitor.get(page).text)
    assert re.search(r'class="n">4</td>\s*</tr>', visitor.get("/failures").text)


def test_a_group_is_replayed_to_another_consumer(visitor: Visitor, engine: Engine) -> None:
    fail(engine, shape="another")
    wanted = {fail(engine) for _ in range(2)}
    page = group_of(visitor)
    same = {**shown(visitor, page), "consumer": SYNC, "reason": "a test", "ticket": "t"}
    assert "Choose another consumer" in visitor.post(f"{page}/replay", same).text
    none = {**same, "consumer": "CountRegistrations"}
    assert "has no such event" in visitor.post(f"{page}/replay", none).text
    assert one(engine, "SELECT count(*) FROM kratos_sync.deliveries") == 3
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE kratos_sync.events SET name = 'identity.registered'")
    asked = visitor.post(f"{page}/replay", none).text
    assert "at most 100 a second, so in 20 ms or more" in asked
    confirmed = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked))
    assert "2 of 2 done" in ended(visitor, sent(visitor, f"{page}/replay", **confirmed))
    with engine.connect() as connection:
        pending = connection.exec_driver_sql(
            "SELECT event_id FROM kratos_sync.deliveries WHERE consumer = 'CountRegistrations'"
        )
        assert set(pending.scalars()) == wanted


def test_what_runs_is_shown_with_its_progress_to_everybody(
    visit: Visit, engine: Engine, container: Container
) -> None:
    fail(engine)
    operations, runner = container.operations(), uuid4()
    number = operations.begin(OperationRequest("retry", "cleo", How.CLI, consumer=SYNC), runner, 10)
    operations.note(number, runner, Progress(4, 10))
    viewer = visit(VIEWER)
    for page in ("/failures", group_of(viewer)):
        text = viewer.get(page).text
        assert f'href="/audit/{number}">retry {number}</a> by cleo' in text
        assert '<progress max="10" value="4"' in text
        assert "4 of 10" in text
        assert 'id="running" hx-get="/failures" hx-trigger="every 2s"' in text


def test_nothing_found_under_a_filter_is_said_of_the_filter(
    visitor: Visitor, engine: Engine
) -> None:
    assert "No dead letters. Every delivery is done" in visitor.get("/failures").text
    fail(engine)
    page = visitor.get("/failures?consumer=CountRegistrations").text
    assert "CountRegistrations has no dead letters." in page
    assert "No dead letters. Every" not in page


def test_what_needs_attention_names_what_can_be_done_about_it(
    visit: Visit, visitor: Visitor, engine: Engine
) -> None:
    odd = "Send/Mail & more?"
    add_delivery(engine, odd, age=timedelta(minutes=9), attempts=12, failed_ago=timedelta())
    ended(visitor, sent(visitor, "/consumers/pause", consumer=SYNC))
    page = visitor.get("/").text
    actions = re.findall(r'<a class="button" href="([^"]+)">([^<]+)</a></li>', page)
    assert (f"/failures?consumer={quote(odd, safe='')}", "Retry or discard") in actions
    assert ("/#pauses", "Resume it") in actions
    assert "Look" not in dict(actions).values()
    assert odd in visitor.get(f"/failures?consumer={quote(odd, safe='')}").text.replace(
        "&amp;", "&"
    )
    assert "Resume it" not in visit(VIEWER).get("/").text
    assert "Failed, last hour" in page
