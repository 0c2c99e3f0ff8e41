"""Parts of a page that update themselves: paused, keeping the focus, and honest when they fail."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import Page
from sqlalchemy import Engine

from kratos_sync.application.ports.operations import How, OperationRequest, Outcome, Progress
from kratos_sync.infrastructure.ledger.operations import PostgresOperations
from tests.end_to_end.console.using import Console

EVERY = 2_100
"""Milliseconds, by the page's clock: an operation that runs is asked for once in them."""
STATE = "#updates-state"


class Running:
    """An operation that runs, and its page, whose clock the test moves."""

    def __init__(self, page: Page, engine: Engine) -> None:
        self.page = page
        self._operations, self._runner = PostgresOperations(engine), uuid4()
        request = OperationRequest("replay", "cleo", How.CLI)
        self._number = self._operations.begin(request, self._runner, 10)
        self.path = f"/audit/{self._number}"
        self.asked = 0
        page.on("request", self._count)

    def _count(self, request: object) -> None:
        self.asked += "hx-request" in getattr(request, "headers", {})

    def goes_on(self, done: int) -> None:
        """It has done so much, and the page's time comes to ask for it."""
        self._operations.note(self._number, self._runner, Progress(done, 10))
        self.page.clock.run_for(EVERY)

    def ends(self) -> None:
        """It has completed, and the page's time comes to ask for it."""
        progress = Progress(10, 10)
        self._operations.note(self._number, self._runner, progress, Outcome.COMPLETED)
        self.page.clock.run_for(EVERY)


@pytest.fixture
def running(console: Console, engine: Engine) -> Iterator[Running]:
    with console.person() as person:
        person.page.clock.install()
        running = Running(person.page, engine)
        person.open(running.path)
        yield running


def test_what_is_shown_is_paused_and_goes_on(running: Running) -> None:
    page = running.page
    running.goes_on(4)
    page.wait_for_selector("text=4 of 10")
    page.click("button:has-text('Pause updates')")
    assert page.get_attribute("#pause", "aria-pressed") == "true"
    assert "Paused" in page.inner_text(STATE)
    asked = running.asked
    for done in (5, 6):
        running.goes_on(done)
    assert running.asked == asked
    assert "4 of 10" in page.inner_text("#progress")
    page.click("button:has-text('Pause updates')")
    running.goes_on(7)
    page.wait_for_selector("text=7 of 10")
    assert page.inner_text(STATE) == ""


def test_an_update_keeps_the_focus(running: Running) -> None:
    page = running.page
    page.focus("a:has-text('All operations')")
    running.goes_on(4)
    page.wait_for_selector("text=4 of 10")
    assert page.evaluate("document.activeElement.textContent") == "All operations"


def test_what_became_of_it_is_read_out_and_its_progress_is_not(running: Running) -> None:
    page = running.page
    running.goes_on(4)
    page.wait_for_selector("text=4 of 10")
    assert page.text_content("#said") == ""
    running.ends()
    page.wait_for_selector("#said:text-is('replay by cleo: completed')", state="attached")


def test_what_is_typed_meanwhile_stays(running: Running) -> None:
    page = running.page
    page.fill("#reason-stop", "it is the wrong")
    running.goes_on(4)
    page.wait_for_selector("text=4 of 10")
    page.keyboard.type(" hook")
    assert page.input_value("#reason-stop") == "it is the wrong hook"


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (lambda route: route.fulfill(status=503), "Not up to date: the console answers 503."),
        (lambda route: route.abort(), "Not up to date: the console does not answer."),
    ],
    ids=["503", "no answer"],
)
def test_a_page_that_is_out_of_date_says_so(
    running: Running, console: Console, fails: Callable[..., None], said: str
) -> None:
    page = running.page
    page.route(f"**{running.path}", fails)
    running.goes_on(4)
    page.wait_for_selector(f"{STATE}:has-text('{said}')")
    page.unroute_all()
    running.goes_on(5)
    page.wait_for_selector("text=5 of 10")
    assert page.inner_text(STATE) == ""
    console.complaints.clear()  # the browser's of the answers above


def test_a_page_without_live_parts_offers_no_pause(console: Console) -> None:
    with console.person() as person:
        person.open("/events")
        assert not person.page.is_visible("#pause")
        person.open("/")
        assert person.page.is_visible("#pause")
