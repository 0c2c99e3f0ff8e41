"""A first look at rate, latency and recovery: ``python -m benchmarks.first_look``.

It needs nothing but what the tests need, and writes nothing down.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measures.deliver import backlog, deliver
from benchmarks.measures.faults import empty_redis, fault, kill_the_worker
from benchmarks.measures.latency import to_its_row
from benchmarks.stage import DEFAULT_LEASE_SECONDS, Stage, raised
from benchmarks.verdict import WrongResult

EVENTS, EVENTS_ONE_BY_ONE, EVENTS_AMID_FAULTS = 20_000, 5_000, 5_000
PEOPLE = 200
RIGHT = "rows and attempts right"


def look(stage: Stage) -> Iterator[tuple[str, str]]:
    """Measure one thing after the other; give what each is called and how it was."""
    of = to_its_row(stage, PEOPLE)
    yield (
        "latency, idle",
        f"{of['calls']} webhooks, each from its 200 to its row: p50 {of['p50_ms']:.1f} ms,"
        f" p99 {of['p99_ms']:.1f} ms, max {of['max_ms']:.1f} ms",
    )
    yield "backlog", _delivered(stage, EVENTS)
    for name, happen in (("kill -9 of the worker", kill_the_worker), ("FLUSHALL", empty_redis)):
        cost = fault(stage, EVENTS_AMID_FAULTS, happen)
        yield name, f"{cost['left']:,} deliveries left, done {cost['seconds']} s later; {RIGHT}"
    yield "backlog, batches of 1", _delivered(stage, EVENTS_ONE_BY_ONE, "set_batch_size(1)")


def _delivered(stage: Stage, events: int, change: str = "") -> str:
    of = deliver(stage, backlog(events), change=change)
    return (
        f"{of['events']:,} events of {of['people']:,} people: {of['rate']:,.0f} events/s,"
        f" {of['deliveries_per_second']:,.0f} deliveries/s; {RIGHT}"
    )


def main() -> int:
    """Run everything and print a table."""
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.2f}, lease {DEFAULT_LEASE_SECONDS} s")
    try:
        with tempfile.TemporaryDirectory(prefix="first-look-") as d, raised(Path(d)) as stage:
            for name, line in look(stage):
                print(f"{name:<22} {line}", flush=True)
    except WrongResult as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
