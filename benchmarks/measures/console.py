"""Whether each page of the console is quick when a great deal is recorded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil, inf
from time import perf_counter, sleep
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import psycopg

from benchmarks.commands import program
from benchmarks.filling import SYNC, hurried, settle, without_indexes
from benchmarks.measures.pause import load
from benchmarks.pace import pace
from benchmarks.stage import Deployment, Stage
from benchmarks.verdict import require
from benchmarks.watch import Watch
from tests.ports import free_port
from tests.waiting import until

EVENTS_OF_EACH: Final = 10
"""Events of an identity: as many are recorded as this times the identities."""
SHAPES: Final = 40
DAYS: Final = 90
LONGEST_SECONDS: Final = 900.0
WARM: Final = 3
"""Times that a page is opened before it is timed."""
PAGES_PER_SECOND: Final = 5
"""So often a page is opened while webhooks are delivered: ten operators, each every two seconds."""
SETTINGS: Final = {
    "CONSOLE_SIGN_IN": "proxy",
    "CONSOLE_PROXY_ADDRESSES": "127.0.0.1",
    "CONSOLE_KEPT_SECONDS": "15",
}
"""The last is the default, and another in tests."""
HEADERS: Final = {
    "X-Forwarded-User": "benchmark",
    "X-Forwarded-Groups": "viewer,operator,privacy",
    "Sec-Fetch-Site": "same-origin",
}
FILLED: Final = ("kratos_identities", "events", "attempts", "deliveries")
_ID: Final = "md5('{of}' || {number})::uuid"
PERSON, EVENT = (_ID.format(of=of, number="number") for of in ("person", "event"))
IDENTITIES: Final = f"""
    INSERT INTO kratos_sync.kratos_identities
        (id, external_id, schema_id, state, traits, verifiable_addresses, recovery_addresses,
         created_at, updated_at, synced_at, version)
    SELECT {PERSON}, 'customer-' || number, 'person', 'active',
           jsonb_build_object('email', address, 'name', jsonb_build_object('first', 'Robin')),
           jsonb_build_array(jsonb_build_object('via', 'email', 'value', address)),
           jsonb_build_array(jsonb_build_object('via', 'email', 'value', address)),
           now() - interval '{DAYS} d', now(), now(), {EVENTS_OF_EACH}
    FROM (SELECT number, 'robin-' || number || '@example.org' AS address
          FROM generate_series(1, %(identities)s) AS number) AS person
"""  # noqa: S608  # every part is ours
# Nine of ten are webhooks of four hooks; the tenth is a fact.
EVENTS: Final = f"""
    INSERT INTO kratos_sync.events
        (id, name, subject, occurred_at, recorded_at, payload, source, dedupe_key, trace_context,
         hook)
    SELECT {EVENT}, CASE WHEN is_fact THEN 'identity.traits_changed'
                         ELSE 'kratos_identity.updated' END,
           md5('person' || 1 + number %% %(identities)s)::uuid, at, at,
           json_build_object('identity', json_build_object('traits', json_build_object(
               'email', 'robin-' || number || '@example.org'))),
           CASE WHEN is_fact THEN 'SyncKratosIdentity' ELSE 'webhook' END,
           'webhook:' || {EVENT},
           CASE WHEN number %% 100 = 0
                THEN '00-' || md5(number::text) || '-00f067aa0ba902b7-01' END,
           CASE WHEN NOT is_fact
                THEN (ARRAY['registration.after.password', 'settings.after.profile',
                            'login.after.password', 'verification.after'])[1 + number %% 4] END
    FROM (SELECT number, number %% {EVENTS_OF_EACH} = 0 AS is_fact,
                 now() - interval '{DAYS} d' * (1 - number::float / %(events)s) AS at
          FROM generate_series(1, %(events)s) AS number) AS recorded
"""  # noqa: S608  # every part is ours
ATTEMPTS: Final = """
    INSERT INTO kratos_sync.attempts (event_id, consumer, number, outcome, started_at, duration)
    SELECT id, 'SyncKratosIdentity', 1, 'succeeded', recorded_at, '3 ms' FROM kratos_sync.events
"""
# As many characters as a traceback has, and a message that differs between events.
DEAD_LETTERS: Final = f"""
    INSERT INTO kratos_sync.deliveries
        (event_id, consumer, subject, attempts, owed_at, due_at, last_error, failed_at, error_type,
         error_shape)
    SELECT {EVENT},
           (ARRAY['SyncKratosIdentity', 'CountRegistrations', 'DeleteFromKratos'])[1 + number %% 3],
           md5('person' || 1 + number %% %(identities)s)::uuid, 10, at, at,
           repeat(md5(number::text) || E'\\n', 45) || 'RuntimeError: order ' || number,
           at, 'RuntimeError', 'order number of kind ' || shape
    FROM (SELECT number::bigint * %(events)s / %(dead_letters)s AS number,
                 number %% {SHAPES} AS shape,
                 now() - interval '{DAYS} d' * (1 - number::float / %(dead_letters)s) AS at
          FROM generate_series(1, %(dead_letters)s) AS number) AS failed
"""  # noqa: S608  # every part is ours

NEWEST: Final = """
    SELECT id, subject FROM kratos_sync.events ORDER BY recorded_at DESC, id DESC LIMIT 1
"""
NUMBERED: Final = """
    SELECT id, recorded_at FROM kratos_sync.events WHERE id = md5('event' || %s::text)::uuid
"""

LAST_ATTEMPT: Final = "SELECT coalesce(max(id), 0) AS id FROM kratos_sync.attempts"
DELIVERED: Final = """
    SELECT count(*) AS n FROM kratos_sync.attempts WHERE id > %s AND consumer = %s
"""


@dataclass(frozen=True)
class Records:
    """How much is recorded, and how often each page is opened."""

    identities: int
    dead_letters: int
    times: int
    webhooks_per_second: int
    """So many are delivered while pages are opened a second time."""
    seconds: int
    """How long their rate is measured without pages."""

    @property
    def events(self) -> int:
        """How many events are recorded."""
        return EVENTS_OF_EACH * self.identities


def console(stage: Stage, wanted: Records) -> dict[str, Any]:
    """Open every page many times, alone at once and more slowly while webhooks are delivered.

    ``p95_ms`` is that of the slowest page while they are, and ``ratio`` is of the rate at which
    they are delivered meanwhile and before. Raises WrongResult for a page that is not what it
    should be.
    """
    with stage.deployed() as service:
        began = perf_counter()
        _fill(service.database_url, wanted)
        seconds = perf_counter() - began
        settings = [f"{name}={value}" for name, value in SETTINGS.items()]
        port = free_port()
        service.start_all()
        service.start(
            "console", "console", "--port", str(port), program=("env", *settings, *program())
        )
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(
            base_url=address, headers={**HEADERS, "Origin": address}, timeout=60, trust_env=False
        ) as browser:
            until(lambda: _answers(browser))
            pages = _pages(service, browser, wanted)
            index = pace()
            with Watch(service.pids()) as watch:
                alone = {name: _timed(ask, wanted.times) for name, ask in pages.items()}
                first = _last_attempt(service)
                with load(stage, service, wanted.webhooks_per_second, LONGEST_SECONDS):
                    until(lambda: _delivered(service, first) > wanted.webhooks_per_second)
                    before = _rate(service, lambda: sleep(wanted.seconds))
                    loaded: dict[str, dict[str, float]] = {}
                    meanwhile = _rate(
                        service,
                        lambda: loaded.update(
                            {
                                name: _timed(ask, wanted.times, PAGES_PER_SECOND)
                                for name, ask in pages.items()
                            }
                        ),
                    )
    return {
        "identities": wanted.identities,
        "events": wanted.events,
        "dead_letters": wanted.dead_letters,
        "seeding_seconds": round(seconds, 1),
        "pace": index,
        "pages": alone,
        "pages_under_load": loaded,
        "rate_before": before,
        "rate_meanwhile": meanwhile,
        "ratio": round(meanwhile / before, 3),
        "p95_ms": max(page["p95_ms"] for page in loaded.values()),
        "memory": watch.memory(),
    }


def _rate(service: Deployment, do: Callable[[], None]) -> float:
    """The events a second that are delivered while something is done."""
    first, began = _last_attempt(service), perf_counter()
    do()
    return round(_delivered(service, first) / (perf_counter() - began), 1)


def _last_attempt(service: Deployment) -> int:
    last: int = service.ask(LAST_ATTEMPT)[0]["id"]
    return last


def _delivered(service: Deployment, after: int) -> int:
    number: int = service.ask(DELIVERED, after, SYNC)[0]["n"]
    return number


def _fill(url: str, wanted: Records) -> None:
    """Fill empty tables."""
    numbers = {
        "identities": wanted.identities,
        "events": wanted.events,
        "dead_letters": wanted.dead_letters,
    }
    with (
        hurried(url),
        without_indexes(url, *FILLED),
        psycopg.connect(url, autocommit=True) as connection,
    ):
        for statement in (IDENTITIES, EVENTS, ATTEMPTS, DEAD_LETTERS):
            connection.execute(statement.encode(), numbers)
    settle(url, *FILLED)


def _answers(browser: httpx.Client) -> bool:
    try:
        return browser.get("/identity").is_success
    except httpx.TransportError:
        return False


def _pages(
    service: Deployment, browser: httpx.Client, wanted: Records
) -> Mapping[str, Callable[[], None]]:
    """What is timed, by name: also the dearest searches, and pages far down a list."""
    (newest,) = service.ask(NEWEST)
    (middle,) = service.ask(NUMBERED, str(wanted.events // 2))
    far = urlencode({"before": f"{middle['recorded_at'].isoformat()} {middle['id']}"})
    trace = "0" * 32

    def page(path: str, shows: str) -> Callable[[], None]:
        def ask() -> None:
            answer = browser.get(path)
            require(answer.is_success and shows in answer.text, f"{path}: {answer.status_code}")

        return ask

    group = browser.get("/failures").text.partition('href="/failures/')[2].partition('"')[0]
    numbers: Iterator[int] = iter(range(1, wanted.identities))

    def find(known: str) -> Callable[[], None]:
        def ask() -> None:
            answer = browser.post("/identity", data={"known": known.format(next(numbers))})
            require(answer.status_code == httpx.codes.SEE_OTHER, f"{known}: {answer.status_code}")

        return ask

    return {
        "now": page("/", "SyncKratosIdentity"),
        "failures": page("/failures", group),
        "failures of one consumer": page("/failures?consumer=SyncKratosIdentity", "RuntimeError"),
        "one group": page(f"/failures/{group}", "RuntimeError"),
        "identity by address": find("robin-{}@example.org"),
        "identity by external id": find("customer-{}"),
        "identity": page(f"/identity/{newest['subject']}", str(newest["id"])),
        "events": page("/events", "/events/"),
        "events, in the middle": page(f"/events?{far}", "/events/"),
        "events of a name": page("/events?name=identity.traits_changed", "/events/"),
        "events dead of a consumer": page(
            "/events?outcome=dead&consumer=CountRegistrations", "CountRegistrations"
        ),
        "events that succeeded": page("/events?outcome=succeeded", "/events/"),
        "events of a trace without any": page(f"/events?trace_id={trace}", trace),
        "one event": page(f"/events/{newest['id']}", str(newest["id"])),
        "kratos": page("/kratos", "reconcil"),
        "audit": page("/audit", "audit"),
    }


def _timed(ask: Callable[[], None], times: int, per_second: float = inf) -> dict[str, float]:
    for _ in range(WARM):
        ask()
    milliseconds: list[float] = []
    due = perf_counter()
    for _ in range(times):
        sleep(max(due - perf_counter(), 0))
        due += 1 / per_second
        began = perf_counter()
        ask()
        milliseconds.append(1_000 * (perf_counter() - began))
    milliseconds.sort()
    return {
        name: round(milliseconds[ceil(part * times) - 1], 1)
        for name, part in (("p50_ms", 0.5), ("p95_ms", 0.95), ("max_ms", 1.0))
    }
