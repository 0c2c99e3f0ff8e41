"""How fast waiting events are delivered, and whether that was done right."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from time import perf_counter, sleep
from typing import Any

from benchmarks import statements
from benchmarks.filling import SYNC, Waiting, events_of, failing, fill, garbage
from benchmarks.pace import pace
from benchmarks.population import people_for, population, some_twice
from benchmarks.stage import Deployment, Stage
from benchmarks.verdict import require
from benchmarks.watch import Watch
from tests.end_to_end.service import assert_the_books_are_right, differences
from tests.recorded import Recording

SECOND = "NoticeUpdates"
LONGEST_SECONDS = 300
LOOK_SECONDS = 0.05
FAILING_PERCENT = 1
A_WORKER_FOR_EACH_CORE = os.cpu_count() or 1
KEPT_BACKLOGS = 4
# Events that began before the one before them, about the same identity, had ended.
OUT_OF_ORDER = """
    SELECT count(*) FILTER (WHERE began < ended_before) AS n
    FROM (SELECT a.started_at AS began, lag(a.started_at + a.duration)
                 OVER (PARTITION BY e.subject ORDER BY recorded.number) AS ended_before
          FROM unnest(%s::uuid[]) WITH ORDINALITY AS recorded (id, number)
          JOIN kratos_sync.events e ON e.id = recorded.id
          JOIN kratos_sync.attempts a ON a.event_id = e.id AND a.consumer = %s) AS consumed
"""


@dataclass(frozen=True)
class Backlog:
    """Pending events, some of them to fail, and what the rows must be in the end."""

    events: Sequence[Waiting]
    recording: Recording

    @property
    def at(self) -> datetime:
        """When they are said to have come: just after the newest change in the recording."""
        newest = max(person["updated_at"] for person in self.recording.listing.values())
        return datetime.fromisoformat(newest) + timedelta(seconds=1)

    @property
    def healthy(self) -> int:
        """How many events are to be consumed."""
        return sum(not event.fails for event in self.events)


@lru_cache(KEPT_BACKLOGS)
def backlog(count: int, failing_by: str = "") -> Backlog:
    """So many recorded events in any order, of about a fifth as many people.

    Those that are to fail come on top: ``garbage``, whose payload is no identity, or ``failure``,
    on which a consumer fails.
    """
    recording = population(people_for(count))
    calls = some_twice(recording.calls, count, seed=1)
    events = events_of(calls)
    some = calls[:: 100 // FAILING_PERCENT] if failing_by else []
    bad = garbage(some) if failing_by == "garbage" else failing(some)
    step = 100 // FAILING_PERCENT
    for number, event in enumerate(bad):
        events.insert(number * (step + 1), event)
    return Backlog(events, recording)


def deliver(
    stage: Stage,
    waiting: Backlog,
    consumers: Sequence[str] = (SYNC,),
    change: str = "",
    workers: int = A_WORKER_FOR_EACH_CORE,
    *,
    in_order: bool = False,
    without_broker: bool = False,
) -> dict[str, Any]:
    """Deliver the backlog with the service's own commands. Raises WrongResult.

    ``in_order`` says that the consumers, as changed, are ordered; ``without_broker`` that
    `kratos-sync all` delivers it, and no workers.
    """
    with stage.deployed() as service:
        fill(service.database_url, waiting.events, consumers, waiting.at, in_order=in_order)
        if not without_broker:
            service.start_workers(workers, change)
        statements.forget(service.database_url)
        index = pace()
        if without_broker:
            service.start_without_broker()
        else:
            service.start_relay(change)
        began = perf_counter()
        with Watch({**service.pids(), **stage.server_pids()}) as watch:
            until_none_is_left(service, consumers)
            seconds = perf_counter() - began
            until_none_is_left(service)
            settled = perf_counter() - began
        dearest = statements.dearest(service.database_url)
        succeeded = service.ask(
            "SELECT count(*) AS n FROM kratos_sync.attempts WHERE outcome = 'succeeded'"
        )[0]["n"]
        check(service, waiting, consumers)
        if in_order:
            check_order(service, waiting, consumers)
    return {
        "events": waiting.healthy,
        "people": len(waiting.recording.listing),
        "seconds": round(seconds, 2),
        "rate": round(waiting.healthy / seconds, 1),
        "pace": index,
        "deliveries_per_second": round(succeeded / settled, 1),
        "cpu_microseconds": watch.cpu_microseconds(waiting.healthy),
        "memory": watch.memory(),
        "statements": dearest,
    }


def check(service: Deployment, waiting: Backlog, consumers: Sequence[str]) -> None:
    """Raise WrongResult unless every row is right and everything was consumed exactly once."""
    wrong = differences(service, waiting.recording.listing) if SYNC in consumers else []
    require(not wrong, f"{len(wrong)} fields are wrong, such as {wrong[:1]}")
    for consumer in consumers:
        rows = service.ask(
            "SELECT count(*) AS attempts, count(DISTINCT event_id) AS events"
            " FROM kratos_sync.attempts WHERE consumer = %s AND outcome = 'succeeded'",
            consumer,
        )
        expected = {"attempts": waiting.healthy, "events": waiting.healthy}
        require(rows == [expected], f"{consumer} succeeded {rows}, not {expected}")
    bad = len(waiting.events) - waiting.healthy
    failed = service.ask("SELECT count(*) AS n FROM kratos_sync.deliveries WHERE attempts > 0")
    require(failed == [{"n": bad}], f"{failed} events have failed, not {bad}")
    if not bad and SYNC in consumers:
        assert_the_books_are_right(service, waiting.healthy, waiting.recording)


def check_order(service: Deployment, waiting: Backlog, consumers: Sequence[str]) -> None:
    """Raise WrongResult unless each consumer got each identity's events in the order recorded."""
    for consumer in consumers:
        (found,) = service.ask(OUT_OF_ORDER, [event.id for event in waiting.events], consumer)
        require(
            not found["n"], f"{consumer} got {found['n']} events before an earlier one was done"
        )


def until_none_is_left(service: Deployment, consumers: Sequence[str] = ()) -> None:
    """Wait until each delivery has been attempted: of these consumers, or of all."""
    asking = "SELECT /* benchmark */ FROM kratos_sync.deliveries WHERE attempts = 0"
    began = perf_counter()
    while service.ask(
        f"{asking} AND (consumer = ANY(%s) OR %s) LIMIT 1", list(consumers), not consumers
    ):
        require(perf_counter() - began < LONGEST_SECONDS, "the backlog does not go away")
        sleep(LOOK_SECONDS)
