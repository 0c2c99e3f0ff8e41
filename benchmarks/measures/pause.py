"""How soon a consumer stands still when it is paused under load, and goes on when resumed."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter, sleep
from typing import Any, Final

from benchmarks.commands import ROOT
from benchmarks.filling import SYNC
from benchmarks.measures.deliver import SECOND
from benchmarks.population import population
from benchmarks.stage import Deployment, Stage
from benchmarks.verdict import require
from benchmarks.watch import Watch
from benchmarks.wrk import PATH, write_bodies
from tests.end_to_end.service import KEY

PEOPLE = 2_000
CHANGE = "notice_updates_too()"
LONGEST_SECONDS = 30.0
LOOK_SECONDS = 0.005
CAUGHT_UP = 10
"""When one in so many of those that waited is left, the next pause may come."""
AHEAD_SECONDS: Final = 3
"""So many seconds' webhooks are consumed before the first pause."""
# As `kratos-sync pause` and `resume` do, without the time that a command takes to start.
PAUSE = """
    INSERT INTO kratos_sync.consumer_policies (consumer, paused_at, paused_by, pause_reason)
    VALUES (%s, clock_timestamp(), 'benchmark', 'to be measured')
    ON CONFLICT (consumer) DO UPDATE SET paused_at = excluded.paused_at
    RETURNING paused_at AS at
"""
RESUME = """
    UPDATE kratos_sync.consumer_policies SET paused_at = NULL, paused_by = NULL, pause_reason = NULL
    WHERE consumer = %s RETURNING clock_timestamp() AS at
"""
NOW = "SELECT clock_timestamp() AS at"
# An attempt's end, since the events of a batch have one beginning and come one after another.
LAST = """
    SELECT extract(epoch FROM max(started_at + duration) - %s::timestamptz)::float AS seconds
    FROM kratos_sync.attempts WHERE consumer = %s AND started_at < %s
"""
FIRST = """
    SELECT extract(epoch FROM min(started_at) - %s::timestamptz)::float AS seconds
    FROM kratos_sync.attempts WHERE consumer = %s AND started_at > %s
"""
DONE = """
    SELECT count(*) / extract(epoch FROM %s::timestamptz - %s::timestamptz)::float AS rate
    FROM kratos_sync.attempts
    WHERE consumer = %s AND started_at + duration > %s AND started_at + duration <= %s
"""
CONSUMED = "SELECT count(*) AS n FROM kratos_sync.attempts WHERE consumer = %s"
WAITING = "SELECT count(*) AS n FROM kratos_sync.deliveries WHERE consumer = %s"


def pause(stage: Stage, rate: float, times: int, seconds: int) -> dict[str, Any]:
    """Pause one of two consumers so often, each time for so long. Raises WrongResult.

    The figures of all are the longest, and for the other consumer the median.
    """
    with stage.deployed() as service:
        service.start_workers(1, CHANGE)
        service.start_relay(CHANGE)
        service.start_api()
        longest = (times + 1) * (2 * seconds + LONGEST_SECONDS)
        with Watch(service.pids()) as watch, load(stage, service, rate, longest):
            _until(lambda: service.ask(CONSUMED, SECOND)[0]["n"] > AHEAD_SECONDS * rate, "begin")
            pauses = [_one(service, seconds) for _ in range(times)]
    return {
        "rate": round(rate, 1),
        "stops_in": max(each["stops_in"] for each in pauses),
        "resumes_in": max(each["resumes_in"] for each in pauses),
        "ratio": median(each["ratio"] for each in pauses),
        "pauses": pauses,
        "memory": watch.memory(),
    }


def _one(service: Deployment, seconds: int) -> dict[str, float]:
    """Let all be at work, pause, and resume; the other consumer's rates are of two windows."""
    began = service.ask(NOW)[0]["at"]
    sleep(seconds)
    paused = service.ask(PAUSE, SECOND)[0]["at"]
    sleep(seconds)
    waiting = service.ask(WAITING, SECOND)[0]["n"]
    require(waiting > 0, f"nothing waits for {SECOND}, which is paused")
    resumed = service.ask(RESUME, SECOND)[0]["at"]
    last = service.ask(LAST, paused, SECOND, resumed)[0]["seconds"]
    require(last is not None, f"{SECOND} was not at work when it was paused")
    _until(lambda: service.ask(WAITING, SECOND)[0]["n"] <= waiting // CAUGHT_UP, "catch up")
    first = service.ask(FIRST, resumed, SECOND, resumed)[0]["seconds"]
    before = service.ask(DONE, paused, began, SYNC, began, paused)[0]["rate"]
    meanwhile = service.ask(DONE, resumed, paused, SYNC, paused, resumed)[0]["rate"]
    return {
        "stops_in": round(max(last, 0.0), 3),
        "resumes_in": round(first, 3),
        "others_before": round(before, 1),
        "others_meanwhile": round(meanwhile, 1),
        "ratio": round(meanwhile / before, 3),
    }


def _until(condition: Callable[[], bool], what: str) -> None:
    began = perf_counter()
    while not condition():
        require(perf_counter() - began < LONGEST_SECONDS, f"{SECOND} does not {what}")
        sleep(LOOK_SECONDS)


@contextmanager
def load(
    stage: Stage, service: Deployment, rate: float, seconds: float, people: int = PEOPLE
) -> Iterator[None]:
    """Send webhooks at a constant rate, from entering to leaving; of so many people, in turns."""
    bodies = write_bodies(stage.folder, population(people).calls)
    port = service.address.rpartition(":")[2]
    command = [sys.executable, "-m", "benchmarks.steady", port, PATH, KEY, str(bodies)]
    written = str(stage.folder / "paused.json")
    with subprocess.Popen([*command, str(rate), str(seconds), written], cwd=ROOT) as sender:  # noqa: S603
        try:
            yield
            require(sender.poll() is None, "the load ended too early")
        finally:
            sender.terminate()
