"""What a killed worker, or an emptied Redis, costs in the middle of a backlog."""

from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any

from benchmarks.filling import SYNC, fill
from benchmarks.measures.deliver import backlog, check, until_none_is_left
from benchmarks.stage import Deployment, Stage
from benchmarks.verdict import require

ALREADY_DONE = 5
"""The fault comes when one in so many events is done."""
LOOK_SECONDS = 0.002


def kill_the_worker(service: Deployment) -> None:
    """Kill the worker as the kernel would, and start another."""
    service.kill("worker-1")
    service.start_workers()


def empty_redis(service: Deployment) -> None:
    """Forget every message."""
    service.flush_redis()


def fault(stage: Stage, events: int, happen: Callable[[Deployment], None]) -> dict[str, Any]:
    """Give how long it takes from the fault until all is done, and right. Raises WrongResult."""
    waiting = backlog(events)
    with stage.deployed() as service:
        fill(service.database_url, waiting.events)
        service.start_workers()
        service.start_relay()
        while service.count("attempts") < events // ALREADY_DONE:
            sleep(LOOK_SECONDS)
        began, left = perf_counter(), service.count("deliveries")
        happen(service)
        require(left > 0, "it was over before the fault")
        until_none_is_left(service)
        seconds = perf_counter() - began
        check(service, waiting, (SYNC,))
    return {"left": left, "seconds": round(seconds, 1)}
