"""Answers that are kept for a few seconds: how old they are, and who is not shown them."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from kratos_sync.api.http.console import recent
from kratos_sync.api.http.console.recent import Recent
from tests.api.http.console.conftest import Visit
from tests.api.http.console.test_pages import ended, sent
from tests.api.http.console.visiting import EVERYTHING, SYNC, fail, group_of, shown
from tests.waiting import DEADLINE_SECONDS, until


class Question:
    """Counts how often it is asked; fails where it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.is_failing = False
        self.version = 0

    def ask(self, key: str) -> str:
        self.asked.append(key)
        if self.is_failing:
            raise LookupError
        return f"{key} {len(self.asked)}"


@pytest.fixture
def question() -> Question:
    return Question()


@pytest.fixture
def stopped() -> Iterator[threading.Event]:
    """Is set when the test has ended."""
    stopped = threading.Event()
    yield stopped
    stopped.set()


@pytest.fixture(autouse=True)
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is refreshed within a test, and after it nothing is asked."""
    monkeypatch.setattr(recent, "EVERY_SECONDS", 5.0)
    monkeypatch.setattr(recent, "LOOKED_AT_SECONDS", 0.0)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are refreshed all the time for half a second."""
    monkeypatch.setattr(recent, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(recent, "LOOKED_AT_SECONDS", 0.5)


@pytest.fixture
def kept_seconds() -> int:
    return 60


def test_an_answer_is_shown_again_until_something_changed(
    question: Question, stopped: threading.Event
) -> None:
    answers = Recent(question.ask, lambda: question.version, 60, stopped)
    assert [answers.get("a"), answers.get("a"), answers.get("b")] == ["a 1", "a 1", "b 2"]
    question.version += 1
    assert answers.get("a") == "a 3"


def test_what_changed_while_it_was_asked_is_asked_again(
    question: Question, stopped: threading.Event
) -> None:

    def ask(key: str) -> str:
        question.version += 1
        return question.ask(key)

    answers = Recent(ask, lambda: question.version, 60, stopped)
    assert [answers.get("a"), answers.get("a")] == ["a 1", "a 2"]


def test_an_old_answer_is_not_shown(question: Question, stopped: threading.Event) -> None:
    now = 0.0
    answers = Recent(question.ask, lambda: 0, 10, stopped, clock=lambda: now)
    answers.get("a")
    now = 9.9
    assert answers.get("a") == "a 1"
    now = 10.0
    assert answers.get("a") == "a 2"


@pytest.mark.usefixtures("often")
def test_an_answer_is_refreshed_while_somebody_looks_and_not_for_ever(
    question: Question, stopped: threading.Event
) -> None:
    answers = Recent(question.ask, lambda: 0, 60, stopped)
    answers.get("a")
    until(lambda: len(question.asked) > 2)
    until(lambda: answers._refreshing is None)
    asked = len(question.asked)
    assert answers.get("a") == f"a {asked + 1}"


@pytest.mark.usefixtures("often")
def test_an_answer_that_cannot_be_refreshed_is_asked_for_by_the_page_which_fails(
    question: Question, stopped: threading.Event
) -> None:
    answers = Recent(question.ask, lambda: 0, 60, stopped)
    answers.get("a")
    question.is_failing = True
    until(lambda: answers._refreshing is None)
    with pytest.raises(LookupError):
        answers.get("a")


@pytest.mark.usefixtures("often")
def test_nothing_is_refreshed_once_the_console_stops(
    question: Question, stopped: threading.Event
) -> None:
    answers = Recent(question.ask, lambda: 0, 60, stopped)
    answers.get("a")
    refreshing = answers._refreshing
    assert refreshing is not None
    stopped.set()
    refreshing.join(DEADLINE_SECONDS)
    assert not refreshing.is_alive()


def test_no_more_are_kept_than_may_be(question: Question, stopped: threading.Event) -> None:
    answers = Recent(question.ask, lambda: 0, 60, stopped)
    for number in range(3 * recent.MOST_KEPT):
        answers.get(str(number))
    assert len(answers._kept) == recent.MOST_KEPT


def test_who_changes_something_sees_it_at_once(visit: Visit, engine: Engine) -> None:
    visitor = visit(EVERYTHING)
    fail(engine)
    assert f"{SYNC} has 1 dead letter" in visitor.get("/").text
    assert "1 dead letter in 1 group" in visitor.get("/failures").text
    fail(engine, shape="of another kind")
    assert "1 dead letter in 1 group" in visitor.get("/failures").text
    assert "As of" in visitor.get("/failures").text
    page = group_of(visitor)
    ended(visitor, sent(visitor, f"{page}/retry", **shown(visitor, page), which="one"))
    assert "of another kind" in visitor.get("/failures").text
    assert f"{SYNC} has 1 dead letter" in visitor.get("/").text
