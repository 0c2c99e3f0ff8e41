"""A first look at the service's speed: ``python -m benchmarks.first_look``.

Starts a PostgreSQL and a Valkey of its own, the real commands beside them, and ends them all. The
events are those of ``tests/recordings/lives.json.gz``, told of twenty times as many people.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from random import Random
from signal import SIGCONT, SIGSTOP
from statistics import quantiles
from time import perf_counter, sleep
from uuid import UUID, uuid5

from pydantic import SecretStr
from sqlalchemy import Engine
from tests.end_to_end.service import Service, assert_the_books_are_right, differences
from tests.infrastructure.bus.servers import ReturningValkey
from tests.recorded import Call, Recording, two_hundred_lives
from uuid_utils.compat import uuid7

from application.ports.event_bus import Provenance
from domain.events import KratosIdentityUpdated
from infrastructure.database import connect
from infrastructure.embedded import EmbeddedPostgres
from infrastructure.ledger.record import record_many
from infrastructure.migrations import migrate

PEOPLE, EVENTS = 4_000, 20_000
EVENTS_ONE_BY_ONE = 5_000
EVENTS_AMID_FAULTS = 5_000
LATENCIES = 200
LEASE_SECONDS = 30
"""The default; recovery from faults waits for it."""
LONGEST_SECONDS = 300

AN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ONE_BY_ONE = """
from application.subscriptions import CONSUMERS
for consumer in CONSUMERS.values():
    consumer.batch_size = 1
from api.commands import main
main()
"""


def crowd(size: int) -> Recording:
    """The recorded lives, lived by so many people."""
    lives = two_hundred_lives()
    calls: list[Call] = []
    listing = {}
    for number in range(size // len(lives.listing)):

        def renamed(text: str, number: int = number) -> str:
            return AN_ID.sub(lambda found: str(uuid5(UUID(found[0]), str(number))), text)

        calls += (
            Call(call.headers, renamed(call.body.decode()).encode(), renamed(call.person)).anew()
            for call in lives.calls
        )
        people = json.loads(renamed(json.dumps(list(lives.listing.values()))))
        listing |= {person["id"]: person for person in people}
    return Recording(calls, listing)


def some_twice(calls: list[Call], count: int, seed: int) -> list[Call]:
    """All the calls, and some again, in any order."""
    random = Random(seed)  # noqa: S311
    calls = [*calls, *random.choices(calls, k=count - len(calls))]
    random.shuffle(calls)
    return calls


def fill(engine: Engine, calls: list[Call]) -> float:
    """Record the calls' events as if nobody had dispatched any yet; give events a second."""
    began, left = perf_counter(), iter(calls)
    while chunk := list(islice(left, 1_000)):
        events = []
        for call in chunk:
            now = datetime.now(UTC)
            event = KratosIdentityUpdated.from_json(uuid7(), now, json.loads(call.body))
            events.append((event, Provenance("benchmark")))
        with engine.begin() as connection:
            record_many(connection, events)
    return len(calls) / (perf_counter() - began)


def require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SystemExit(f"FAILED: {otherwise}")


def until_settled(service: Service) -> None:
    began = perf_counter()
    while service.ask("SELECT FROM kratos_sync.deliveries LIMIT 1"):
        require(perf_counter() - began < LONGEST_SECONDS, "the backlog does not go away")
        sleep(0.02)


def verdict(service: Service, told: int, recording: Recording) -> str:
    wrong = differences(service, recording.listing)
    require(not wrong, f"{len(wrong)} fields are wrong, such as {wrong[:1]}")
    assert_the_books_are_right(service, told, recording)
    return f"{len(recording.listing):,} of {len(recording.listing):,} rows right, attempts right"


def backlog(service: Service, engine: Engine, recording: Recording, count: int) -> Iterator[str]:
    """How fast one worker finishes so many waiting events."""
    service.signal("relay", SIGSTOP)
    calls = some_twice(recording.calls, count, seed=1)
    rate, people = fill(engine, calls), len(recording.listing)
    yield f"{count:,} events of {people:,} people wait, recorded at {rate:,.0f}/s"
    began = perf_counter()
    service.signal("relay", SIGCONT)
    until_settled(service)
    seconds = perf_counter() - began
    deliveries = service.count("attempts")
    yield f"{deliveries:,} deliveries in {seconds:.1f} s: {deliveries / seconds:,.0f} deliveries/s"
    yield verdict(service, count, recording)


def latency(service: Service) -> Iterator[str]:
    """How long after its 200 a webhook is in its row, with nothing else to do."""
    milliseconds = []
    for call in crowd(LATENCIES).calls:
        if service.has(call.person):
            continue
        require(service.post_one(call) == HTTPStatus.OK, "a webhook was refused")
        answered = perf_counter()
        while not service.has(call.person):
            sleep(0.0005)
        milliseconds.append(1_000 * (perf_counter() - answered))
    cut = quantiles(milliseconds, n=100, method="inclusive")
    figures = f"p50 {cut[49]:.1f} ms, p99 {cut[98]:.1f} ms, max {max(milliseconds):.1f} ms"
    yield f"{len(milliseconds)} webhooks, each from its 200 to its row: {figures}"


def fault(service: Service, engine: Engine, recording: Recording, kind: str) -> Iterator[str]:
    """What a killed worker or an emptied Redis costs in the middle of a backlog."""
    count = EVENTS_AMID_FAULTS
    service.signal("relay", SIGSTOP)
    fill(engine, some_twice(recording.calls, count, seed=2))
    service.signal("relay", SIGCONT)
    while service.count("attempts") < count // 5:
        sleep(0.002)
    if kind == "kill -9":
        service.kill("worker")
    else:
        service.flush_redis()
    began, left = perf_counter(), service.count("deliveries")
    if kind == "kill -9":
        service.start("worker", "worker")
    require(left > 0, "it was over before the fault")
    until_settled(service)
    yield f"{left:,} deliveries left, all done {perf_counter() - began:.1f} s later"
    yield verdict(service, count, recording)


def main() -> None:
    """Run everything and print a table."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, lease {LEASE_SECONDS} s")
    with tempfile.TemporaryDirectory(prefix="first-look-") as directory:
        folder = Path(directory)
        with EmbeddedPostgres(folder / "postgres") as postgres:
            engine = connect(SecretStr(postgres.url), pool_size=2)
            migrate(engine)
            with (
                ReturningValkey(folder / "valkey") as valkey,
                Service(folder, postgres.url, valkey, LEASE_SECONDS) as service,
            ):
                look(service, engine)
            engine.dispose()


def look(service: Service, engine: Engine) -> None:
    many, some = crowd(PEOPLE), crowd(PEOPLE // 4)

    def show(title: str, lines: Iterator[str]) -> None:
        for line in lines:
            print(f"{title:<22} {line}", flush=True)
            title = ""
        service.forget()

    show("latency, idle", latency(service))
    show("backlog", backlog(service, engine, many, EVENTS))
    show("kill -9 of the worker", fault(service, engine, some, "kill -9"))
    show("FLUSHALL", fault(service, engine, some, "FLUSHALL"))
    service.stop("relay")
    service.start("relay", "relay", program=(sys.executable, "-c", ONE_BY_ONE))
    show("backlog, batches of 1", backlog(service, engine, some, EVENTS_ONE_BY_ONE))


if __name__ == "__main__":
    main()
