"""Every action of the console as a person does it in a browser, with scripts and without."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.domain.people import ADA
from tests.end_to_end.console.lives import (
    DEAD,
    LOST,
    NEW,
    OLD,
    SYNC,
    engine_of,
    live,
    lose,
    register,
    rename,
)
from tests.end_to_end.console.using import SCRIPTS, Console, Person
from tests.suites.reconciling import World

ROOT = Path(__file__).parents[3]
COUNTING = "CountRegistrations"
REASON = "asked for in ticket 4711"

IDENTITY = f"/identity/{ADA}"
EMAIL = f"SELECT traits->>'email' FROM kratos_sync.kratos_identities WHERE id = '{ADA}'"
ALIVE = "SELECT count(*) FROM kratos_sync.kratos_identities WHERE deleted_at IS NULL"
DEAD_LETTERS = "SELECT count(*) FROM kratos_sync.deliveries WHERE failed_at IS NOT NULL"
SUCCEEDED = "SELECT count(*) FROM kratos_sync.attempts WHERE outcome = 'succeeded'"
OPERATIONS = "SELECT operation, by, how, reason, outcome FROM kratos_sync.operations ORDER BY id"
MANY_EVENTS = text("""
    INSERT INTO kratos_sync.events (id, name, subject, occurred_at, recorded_at, payload, source)
    SELECT gen_random_uuid(), name, subject, occurred_at, recorded_at, payload, source
    FROM kratos_sync.events, generate_series(1, 500) WHERE name = 'kratos_identity.updated'
""")


@dataclass(frozen=True, kw_only=True)
class Action:
    """Where it is, what is pressed, what the audit trail calls it, and what is true afterwards."""

    page: str
    unfold: str | None = None
    button: str
    fields: dict[str, str] = field(default_factory=dict)
    confirm: str | None = None
    operation: str
    sees: str = "completed"
    query: str
    gives: object
    given: Callable[[World], object] = live


ACTIONS = {
    "sync an identity": Action(
        page=IDENTITY,
        unfold="Ask Kratos now",
        button=f"Sync identity {ADA}",
        operation="sync",
        query=EMAIL,
        gives=NEW,
    ),
    "replay an identity's events": Action(
        page=IDENTITY,
        unfold="Deliver its events to one consumer again",
        button="Count its events, and ask me",
        fields={"consumer": SYNC},
        confirm=f"Replay 2 events to {SYNC}",
        operation="replay",
        query=f"{SUCCEEDED} AND consumer = '{SYNC}'",
        gives=2 + 2,
        given=register,
    ),
    "replay the events of a time": Action(
        page="/events",
        unfold="Replay events to a consumer",
        button="Count these events, and ask me",
        fields={"consumer": SYNC, "since": "2020-01-01T00:00"},
        confirm=f"Replay 2 events to {SYNC}",
        operation="replay",
        query=f"{SUCCEEDED} AND consumer = '{SYNC}'",
        gives=2 + 2,
        given=register,
    ),
    "delete": Action(
        page=IDENTITY,
        unfold="Delete this identity here and in Kratos",
        button=f"Delete identity {ADA}",
        operation="delete",
        query=f"{SUCCEEDED} AND consumer = 'DeleteFromKratos'",
        gives=1,
        given=register,
    ),
    "erase": Action(
        page=IDENTITY,
        unfold="Erase what is recorded",
        button=f"events of {ADA}",
        operation="erase",
        query=f"SELECT count(*) FROM kratos_sync.events WHERE payload::text LIKE '%{OLD}%'",
        gives=0,
    ),
    "see a person's data": Action(
        page=IDENTITY,
        unfold="Show the person's data",
        button="Show it, and record that I saw it",
        operation="view",
        sees=OLD,
        query=EMAIL,
        gives=OLD,
    ),
    "discard one": Action(
        page="group",
        unfold="Discard instead",
        button=f"Discard one of {SYNC}",
        operation="discard",
        query=DEAD_LETTERS,
        gives=DEAD - 1,
    ),
    "discard all": Action(
        page="group",
        unfold="Discard instead",
        button=f"Discard all {DEAD} of {SYNC} for good",
        operation="discard",
        query=DEAD_LETTERS,
        gives=0,
    ),
    "retry all": Action(
        page="group",
        button=f"Retry all {DEAD} of {SYNC}",
        operation="retry",
        query=f"{SUCCEEDED} AND consumer = '{SYNC}'",
        gives=2 + DEAD,
    ),
    "replay a group to another consumer": Action(
        page="group",
        unfold="Replay to another consumer",
        button="Count these events, and ask me",
        fields={"consumer": SYNC},
        confirm=f"Replay 2 events to {SYNC}",
        operation="replay",
        query=f"{SUCCEEDED} AND consumer = '{SYNC}'",
        gives=2 + 2,
        given=rename,
    ),
    "try an event": Action(
        page="event",
        unfold="Try a consumer on it",
        button=f"Try {SYNC}, and roll back",
        operation="try",
        sees=f"{SYNC} was tried, and everything was rolled back",
        query=DEAD_LETTERS,
        gives=DEAD,
    ),
    "see a payload and its errors": Action(
        page="event",
        unfold="Show payload and errors",
        button="Show them, and record that I saw them",
        operation="view",
        sees=f"no plan for '{OLD}'",
        query=DEAD_LETTERS,
        gives=DEAD,
    ),
    "reconcile": Action(
        page="/kratos",
        button="Reconcile everybody now",
        operation="reconcile",
        query=EMAIL,
        gives=NEW,
    ),
    "reconcile as a dry run": Action(
        page="/kratos",
        button="Dry run",
        operation="reconcile",
        sees="stale: 1",
        query=EMAIL,
        gives=OLD,
    ),
    "approve all deletions that were refused": Action(
        page="/kratos",
        button=f"Reconcile, and delete up to {LOST}",
        operation="reconcile",
        sees=f"deleted: {LOST}",
        query=ALIVE,
        gives=1,
        given=lose,
    ),
    "approve one deletion that was refused": Action(
        page="/kratos",
        unfold="Delete it here",
        button="here, unless Kratos has it",
        operation="sync",
        query=ALIVE,
        gives=LOST,
        given=lose,
    ),
    "see whose deletions were refused": Action(
        page="/kratos",
        unfold="Show who they are",
        button=f"Show these {LOST}, and record that I saw them",
        operation="view",
        sees="@example.org",
        query=ALIVE,
        gives=LOST + 1,
        given=lose,
    ),
}


@SCRIPTS
@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_is_done_once_by_a_double_click_and_recorded_with_its_reason(
    console: Console, world: World, name: str, scripts: bool
) -> None:
    action = ACTIONS[name]
    action.given(world)
    with console.person(scripts=scripts) as person:
        open_page(person, action.page)
        if action.unfold:
            person.click(person.page.locator("summary", has_text=action.unfold).first)
        if action.confirm:
            person.send(action.button, REASON, **action.fields)
            person.send(action.confirm, twice=True)
        else:
            # Without scripts, who asks twice to see something is noted twice.
            twice = scripts or action.operation not in {"view", "try"}
            person.send(action.button, REASON, twice=twice, **action.fields)
        person.sees(action.sees)
    assert rows(world, OPERATIONS) == [(action.operation, "ada", "console", REASON, "completed")]
    world.consume()
    assert rows(world, action.query) == [(action.gives,)]


@SCRIPTS
def test_one_is_retried_as_a_canary_and_then_all(
    console: Console, world: World, scripts: bool
) -> None:
    live(world)
    with console.person(scripts=scripts) as person:
        open_page(person, "group")
        person.send(f"Retry one of {SYNC}", REASON)
        person.sees("pending", within="#progress ol")
        world.consume()
        person.sees("succeeded", within="#progress ol")
        person.click(f"text=Dead letters of {SYNC}")
        person.click("td a >> nth=0")
        person.send(f"Retry all {DEAD - 1} of {SYNC}", REASON)
        person.sees(f"{DEAD - 1} of {DEAD - 1} done")
    assert rows(world, DEAD_LETTERS) == [(0,)]
    assert [each[0] for each in rows(world, OPERATIONS)] == ["retry", "retry"]


@SCRIPTS
def test_a_consumer_is_paused_and_resumed(console: Console, world: World, scripts: bool) -> None:
    live(world)
    paused = "SELECT consumer, paused_by, pause_reason FROM kratos_sync.consumer_policies"
    with console.person(scripts=scripts) as person:
        person.open("/")
        person.unfold("Pause or resume a consumer")
        person.send(f"Pause {COUNTING}", REASON, twice=True)
        person.sees("completed")
        assert rows(world, paused) == [(COUNTING, "ada", REASON)]
        person.open("/")
        person.sees(f"by ada: {REASON}", within=f"#{COUNTING}")
        person.send(f"Resume {COUNTING}", REASON, twice=True)
        person.sees("completed")
    assert rows(world, paused) == [(COUNTING, None, None)]
    assert [each[0] for each in rows(world, OPERATIONS)] == ["pause", "resume"]


@SCRIPTS
def test_the_events_that_are_ticked_are_replayed(
    console: Console, world: World, scripts: bool
) -> None:
    register(world)
    with console.person(scripts=scripts) as person:
        person.open("/events?name=kratos_identity.updated")
        person.click("td input[type=checkbox] >> nth=1")
        person.unfold("Replay events to a consumer")
        person.send("Count these events, and ask me", REASON, consumer=SYNC)
        person.send(f"Replay 1 event to {SYNC}", twice=True)
        person.sees("completed")
    world.consume()
    assert rows(world, f"{SUCCEEDED} AND consumer = '{SYNC}'") == [(2 + 1,)]


@SCRIPTS
def test_an_operation_is_stopped(console: Console, world: World, scripts: bool) -> None:
    live(world)
    with engine_of(world).begin() as connection:
        connection.execute(MANY_EVENTS)
    with console.person(scripts=scripts) as person:
        open_page(person, IDENTITY)
        person.unfold("Deliver its events to one consumer again")
        person.send("Count its events, and ask me", REASON, consumer=SYNC)
        person.click("button:has-text('Replay 2,505 events')")
        person.sees("running")
        person.send("Stop this replay after its step", REASON, twice=True)
        person.sees("ada asked it to stop")
        person.sees("cancelled")
    recorded = [(operation, outcome) for operation, *_, outcome in rows(world, OPERATIONS)]
    assert recorded == [("replay", "cancelled"), ("stop", "completed")]


@SCRIPTS
def test_the_audit_trail_is_exported_as_it_is_filtered(
    console: Console, world: World, scripts: bool
) -> None:
    live(world)
    with console.person(scripts=scripts) as person:
        for name in ("Sync identity", "Show it"):
            person.open(IDENTITY)
            person.unfold("Ask Kratos" if "Sync" in name else "Show the person's data")
            person.send(name, '=HYPERLINK("http://example.org")')
            person.page.wait_for_load_state()
        person.open("/audit")
        person.page.fill("#operation", "sync")
        person.click("button:has-text('Filter')")
        with person.page.expect_download() as download:
            person.click("text=Export as CSV")
        assert download.value.suggested_filename == "audit.csv"
        exported = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert [(each["operation"], each["by"], each["outcome"]) for each in exported] == [
        ("sync", "ada", "completed")
    ]
    assert exported[0]["reason"].startswith("'=")


@SCRIPTS
def test_a_pasted_configuration_shows_what_calls_this_service(
    console: Console, scripts: bool
) -> None:
    ours = (ROOT / "deploy/kratos/kratos.yml").read_text()
    without = ours.partition("\n  flows:")[0]
    with console.person(scripts=scripts) as person:
        for configuration, covers in ((ours, True), (without, False)):
            person.open("/kratos")
            person.send("Check it", configuration=configuration)
            person.sees("By what was pasted")
            assert (person.page.locator("td.missing").count() == 0) is covers
            assert (person.page.locator("td.covered").count() > 0) is covers
            assert (person.page.locator("main li", has_text="error, line").count() == 0) is covers


def test_nobody_erases_without_a_second_factor(console: Console, world: World) -> None:
    live(world)
    with console.person(second_factor=False) as person:
        person.open(IDENTITY)
        person.unfold("Erase what is recorded")
        person.sees("Erasing needs a second factor")
        assert person.page.locator("button:has-text('Erase')").count() == 0


def test_a_viewer_is_offered_no_change(console: Console, world: World) -> None:
    live(world)
    lose(world)
    with console.person("viewer") as person:
        for page in ("/", "group", IDENTITY, "event", "/events", "/kratos", "/audit"):
            open_page(person, page)
            reasons = person.page.locator("[name=reason]").count()
            assert reasons == 0, f"{page} has {reasons} forms that change something"


def open_page(person: Person, page: str) -> None:
    """Open a page, or the group or the event that is alone there."""
    where = {"group": "/failures", "event": "/events?outcome=dead"}
    person.open(where.get(page, page))
    if page in where:
        person.page.locator("td a").first.click()
        person.page.wait_for_url(lambda url: url != person.address + where[page])


def rows(world: World, query: str) -> list[tuple[object, ...]]:
    with engine_of(world).connect() as connection:
        return [tuple(row) for row in connection.execute(text(query))]
