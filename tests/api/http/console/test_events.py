"""The page of events: how far was searched, and what is replayed of what was found."""

import re
from datetime import timedelta
from html import unescape
from http import HTTPStatus
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from kratos_sync.api.http.console import events as page_of_events
from kratos_sync.api.http.console.events import SHOWN
from kratos_sync.infrastructure.ledger import event_search
from tests.api.http.console.test_pages import ended, one
from tests.api.http.console.visiting import SYNC, Visitor, fail, group_of
from tests.infrastructure.ledger.rows import add_delivery, add_event, log_attempt

CONFIRMED = re.compile(r'type="hidden" name="(\w+)" value="([^"]*)"')
EVENTS = re.compile(r'<td><a href="/events/([0-9a-f-]{36})"')


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page searches three events, and thirty on demand."""
    monkeypatch.setattr(page_of_events, "MOST_READ", 3)
    monkeypatch.setattr(page_of_events, "MOST_READ_FURTHER", 30)


@pytest.mark.usefixtures("short")
def test_a_rare_hook_is_found_by_searching_further_at_once(
    visitor: Visitor, engine: Engine
) -> None:
    rare = add_event(engine, hook="rare", age=timedelta(hours=1))
    for _ in range(9):
        add_event(engine, hook="login")
    first = visitor.get("/events?hook=rare").text
    assert "3 events searched, back to" in first
    assert EVENTS.findall(first) == []
    further = re.search(r'href="([^"]+)">Search 30 more at once', first)
    assert further is not None
    second = visitor.get(unescape(further[1])).text
    assert EVENTS.findall(second) == [str(rare)]
    assert "There are no earlier ones." in second


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("outcome", ["dead", "pending"])
def test_a_few_deliveries_are_found_however_old_their_events_are(
    visitor: Visitor, engine: Engine, outcome: str
) -> None:
    failed_ago = timedelta() if outcome == "dead" else None
    old = {
        add_delivery(engine, SYNC, age=timedelta(days=9), failed_ago=failed_ago, leased=leased)
        for leased in (False, True)
    }
    for _ in range(9):
        add_event(engine)
    page = visitor.get(f"/events?outcome={outcome}&consumer={SYNC}").text
    assert set(EVENTS.findall(page)) == set(map(str, old))
    assert "There are no earlier ones." in page


def test_many_dead_letters_are_searched_in_the_log(
    visitor: Visitor, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_search, "FEW", 2)
    dead = {str(fail(engine)) for _ in range(4)}
    assert set(EVENTS.findall(visitor.get("/events?outcome=dead").text)) == dead


@pytest.mark.parametrize("query", ["", "?outcome=dead"])
def test_a_full_last_page_leads_to_no_empty_one(
    visitor: Visitor, engine: Engine, query: str
) -> None:
    for _ in range(SHOWN):
        fail(engine)
    for page in (f"/events{query}", group_of(visitor)):
        assert "Earlier ones" not in visitor.get(page).text
    fail(engine)
    for page in (f"/events{query}", group_of(visitor)):
        assert "Earlier ones" in visitor.get(page).text


@pytest.mark.usefixtures("short")
def test_a_search_that_read_exactly_all_says_so(visitor: Visitor, engine: Engine) -> None:
    for _ in range(3):
        add_event(engine)
    assert "There are no earlier ones." in visitor.get("/events?hook=rare").text


def replayed(visitor: Visitor, **form: object) -> str:
    """The page that asks, and then the operation that was confirmed."""
    said = {"consumer": SYNC, "reason": "a test", "ticket": uuid4().hex, **form}
    asked = visitor.post("/events/replay", said).text  # type: ignore[arg-type]  # lists too
    fields: dict[str, list[str]] = {}
    for name, value in CONFIRMED.findall(asked):
        fields.setdefault(name, []).append(value)
    answer = visitor.post("/events/replay", fields)  # type: ignore[arg-type]  # lists too
    assert answer.status_code == HTTPStatus.SEE_OTHER, answer.text
    ended(visitor, answer.headers["location"])
    return asked


def pending(engine: Engine) -> set[UUID]:
    with engine.connect() as connection:
        statement = "SELECT event_id FROM kratos_sync.deliveries WHERE failed_at IS NULL"
        return set(connection.execute(text(statement)).scalars())


def test_the_events_that_were_ticked_are_replayed(visitor: Visitor, engine: Engine) -> None:
    first, _, third = (add_event(engine) for _ in range(3))
    assert visitor.get("/events").text.count('name="event"') == 3
    asked = replayed(visitor, event=[str(first), str(third)])
    assert f"Replay 2 events to {SYNC}</button>" in asked
    assert "at most 100 a second, so in 20 ms or more" in asked
    assert pending(engine) == {first, third}


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_events_of_an_outcome_at_a_consumer_are_replayed(
    visitor: Visitor, engine: Engine, outcome: str
) -> None:
    wanted = add_event(engine)
    log_attempt(engine, "Greet", wanted, outcome=outcome)
    log_attempt(engine, "Count", add_event(engine), outcome=outcome)
    log_attempt(engine, "Greet", add_event(engine), outcome="postponed")
    form = {"since": "2020-01-01T00:00", "outcome": outcome, "of_consumer": "Greet"}
    assert "Outcome" in replayed(visitor, **form)
    assert pending(engine) == {wanted}


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"outcome": "great", "since": "2020-01-01T00:00"}, "There is no such outcome."),
        ({"event": "1"}, "There are no such events."),
        ({}, "Say from when on, or tick events"),
    ],
)
def test_a_replay_that_makes_no_sense_is_explained(
    visitor: Visitor, engine: Engine, form: dict[str, str], said: str
) -> None:
    asked = {"consumer": SYNC, "reason": "a test", "ticket": "t", **form}
    answer = visitor.post("/events/replay", asked)
    assert (answer.status_code, said in answer.text) == (HTTPStatus.BAD_REQUEST, True)
    assert one(engine, "SELECT count(*) FROM kratos_sync.operations") == 0


def test_a_search_that_went_further_goes_on_as_the_others(visitor: Visitor, engine: Engine) -> None:
    for _ in range(SHOWN + 1):
        add_event(engine)
    page = visitor.get("/events?further=yes").text
    more = re.search(r'href="(/events\?[^"]+)">Earlier ones', page)
    assert more is not None
    assert "further" not in more[1]
