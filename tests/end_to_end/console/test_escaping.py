"""What strangers wrote is shown as text on every page that shows it, and is never carried out."""

import json
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from sqlalchemy import text

from tests.domain.people import ADA, address
from tests.end_to_end.console.lives import (
    SYNC,
    call_hooks,
    engine_of,
    fail,
    of_ada,
    receive,
)
from tests.end_to_end.console.using import Console, Person
from tests.infrastructure.ledger.rows import add_delivery, add_event
from tests.suites.reconciling import World

SCRIPT = "document.title='broken in'"
NAMES = [
    "trait",
    "trait's key",
    "address",
    "external id",
    "unknown field",
    "user agent",
    "hook",
    "other hook",
    "source",
    "event",
    "consumer",
    "error",
    "exception",
    "shape",
    "run",
    "operator",
    "reason",
    "reason to erase",
    "reason to discard",
    "configuration",
]
CANARIES = {
    name: f"""{name}'"><img src=x onerror="{SCRIPT}"><script>{SCRIPT}</script>""" for name in NAMES
}
REFUSED = text("""
    WITH refused AS (
        INSERT INTO kratos_sync.reconciliations
               (started_at, ended_at, outcome, held, identities, known, unseen, unheard)
        VALUES (now(), now(), 'refused: ' || :why, 100, 50, 50, 50, '{}') RETURNING id)
    INSERT INTO kratos_sync.unseen_identities SELECT id, :somebody FROM refused
""")
CONFIGURATION = """
selfservice:
  flows:
    login:
      after:
        "{0}":
          hooks: [{{hook: "{0}"}}, {{hook: web_hook, config: {{url: "http://{0}", method: "{0}"}}}}]
"""
PERSON = "trait, trait's key, address, external id, unknown field, user agent"
STORY = "hook, source, event, consumer, shape, operator, reason to discard"
RUNS = "hook, other hook, run"
SHOWN = {
    "now": "hook, other hook, run, consumer, operator, reason",
    "failures": "consumer, exception, shape",
    "group": "exception, shape",
    "group of a stranger": "consumer, event",
    "discarded": "consumer, event, operator, reason to discard",
    "identity": STORY,
    "a person's data": f"{STORY}, {PERSON}",
    "events": "hook",
    "event": "hook, shape",
    "payload and errors": f"hook, shape, error, {PERSON}",
    "replay": "hook",
    "not subscribed": "event",
    "kratos": RUNS,
    "who is not listed": f"{RUNS}, trait, trait's key",
    "configuration": RUNS,
    "audit": "operator, reason",
    "operation": "operator, reason",
    "erased": "source, event, consumer, operator, reason to erase",
}
"""The canaries that each page shows; of all others it shows nothing."""


@pytest.fixture
def person(console: Console, world: World) -> Iterator[Person]:
    """Somebody with a strange name and browser, among what strangers wrote."""
    said = {
        "traits": {"email": CANARIES["trait"], CANARIES["trait's key"]: 1},
        "external_id": CANARIES["external id"],
        "verifiable_addresses": [address(CANARIES["address"])],
        CANARIES["unknown field"]: CANARIES["user agent"],
    }
    receive(world, of_ada(world, 0, **said), CANARIES["hook"])
    world.consume()
    receive(world, of_ada(world, 1, **said), CANARIES["hook"])
    fail(world, f"ValueError: {CANARIES['error']}", CANARIES["shape"], CANARIES["exception"])
    engine = engine_of(world)
    strange = add_event(
        engine,
        name=CANARIES["event"],
        subject=ADA,
        source=CANARIES["source"],
        hook=None,
    )
    add_delivery(
        engine,
        CANARIES["consumer"],
        strange,
        attempts=12,
        failed_ago=timedelta(minutes=5),
        last_error="KeyError: 1",
        error_type="KeyError",
    )
    call_hooks(world, silent=CANARIES["hook"], called=CANARIES["other hook"])
    with engine.begin() as connection:
        connection.execute(REFUSED, {"why": CANARIES["run"], "somebody": ADA})
    agent = CANARIES["user agent"]
    with console.person(name=CANARIES["operator"], user_agent=agent) as person:
        yield person


def test_every_canary_is_shown_as_text_where_it_belongs_and_nowhere_else(
    person: Person, world: World
) -> None:
    found = {name: canaries_on(person) for name in walk(person)}
    total = sum(map(len, found.values()))
    print(f"{len(CANARIES)} canaries on {len(found)} pages, shown {total} times")
    assert found == {name: set(shown.split(", ")) for name, shown in SHOWN.items()}


def canaries_on(person: Person) -> set[str]:
    """Those that the page shows whole; nothing of any may have become a part of the page."""
    page = person.page
    assert page.locator("img, main script, [onerror]").count() == 0
    assert page.title() != "broken in"
    assert CANARIES["operator"] in page.inner_text(".who")
    fields = page.eval_on_selector_all(
        "main input:not([type=hidden])", "all => all.map(each => each.value)"
    )
    shown = "\n".join([page.inner_text("main"), *fields])
    return {
        name
        for name, canary in CANARIES.items()
        if canary in shown or json.dumps(canary)[1:-1] in shown  # a payload is shown as JSON
    }


def walk(person: Person) -> Iterator[str]:
    """Open every page that shows what others wrote, and name it."""
    for pages in (_operations, _failures, _identity, _events, _kratos, _erasure):
        yield from pages(person)


def _operations(person: Person) -> Iterator[str]:
    person.open("/")
    person.unfold("Pause or resume")
    person.send(f"Pause {SYNC}", CANARIES["reason"])
    person.sees("completed")
    yield "operation"
    person.open("/audit?" + urlencode({"by": CANARIES["operator"]}))
    yield "audit"
    person.open("/")
    yield "now"


def _failures(person: Person) -> Iterator[str]:
    page = person.page
    person.open("/failures")
    yield "failures"
    person.click(page.locator("td a", has_text="KeyError"))
    person.sees("for good")
    yield "group of a stranger"
    person.unfold("Discard instead")
    person.send("Discard one", CANARIES["reason to discard"])
    person.sees("completed")
    yield "discarded"
    person.open("/failures")
    person.click("td a >> nth=0")
    person.sees("for good")
    yield "group"


def _identity(person: Person) -> Iterator[str]:
    page = person.page
    person.open("/identity")
    person.send("Find", known=CANARIES["external id"])
    page.wait_for_url(f"**/identity/{ADA}")
    yield "identity"
    person.unfold("Show the person's data")
    person.send("Show it", CANARIES["reason"])
    person.sees("schema_id")
    yield "a person's data"


def _events(person: Person) -> Iterator[str]:
    page = person.page
    filters = {"hook": CANARIES["hook"], "source": "webhook"}
    person.open("/events?" + urlencode(filters))
    yield "events"
    person.unfold("Replay events to a consumer")
    person.send("Count these events", "again", since="2020-01-01T00:00", consumer=SYNC)
    person.sees("will be delivered")
    yield "replay"
    person.open("/events?outcome=dead")
    person.click("td a >> nth=0")
    person.sees("Consumers")
    yield "event"
    person.unfold("Show payload and errors")
    person.send("Show them", CANARIES["reason"])
    person.sees("verifiable_addresses")
    yield "payload and errors"
    person.open("/events")
    page.eval_on_selector(
        "#replay-name", "(all, name) => { all.options[0].value = name }", CANARIES["event"]
    )
    person.unfold("Replay events to a consumer")
    person.send("Count these events", "again", since="2020-01-01T00:00")
    person.sees("is not subscribed to")
    yield "not subscribed"
    (complaint,) = person.complaints
    assert "status of 400" in complaint
    person.complaints.clear()


def _kratos(person: Person) -> Iterator[str]:
    person.open("/kratos")
    yield "kratos"
    person.unfold("Show who they are")
    person.send("Show these 1", CANARIES["reason"])
    person.sees("Traits")
    yield "who is not listed"
    strange = CANARIES["configuration"].replace('"', "'")
    person.send("Check it", configuration=CONFIGURATION.format(strange))
    person.sees("By what was pasted")
    yield "configuration"


def _erasure(person: Person) -> Iterator[str]:
    person.open(f"/identity/{ADA}")
    person.unfold("Erase what is recorded")
    person.send("Erase the", CANARIES["reason to erase"])
    person.sees("completed")
    person.open(f"/identity/{ADA}")
    yield "erased"
