"""One run: every measure, one after the other, each on empty tables."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from benchmarks.filling import SYNC
from benchmarks.machine import machine
from benchmarks.measures.deliver import SECOND, backlog, deliver
from benchmarks.measures.idle import idle
from benchmarks.measures.latency import at_rate, to_its_row
from benchmarks.measures.limit import limit
from benchmarks.measures.profiles import profiles
from benchmarks.measures.rivals import rivals
from benchmarks.measures.stored import with_stored
from benchmarks.measures.take_in import take_in
from benchmarks.sizes import Size
from benchmarks.stage import Stage
from benchmarks.watch import merged

Results = dict[str, Any]


def run(stage: Stage, size: Size, say: Callable[[str], None]) -> Results:
    """Measure everything, and give what JSON can hold. Raises WrongResult."""
    began = perf_counter()
    results: Results = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "size": size.name,
        "machine": machine(stage),
    }
    for name, measure in measures(stage, size, results):
        started = perf_counter()
        results[name] = measure()
        say(f"{name:<12} {perf_counter() - started:6.1f} s")
    results["memory"] = merged(*_memories(results))
    results["seconds"] = round(perf_counter() - began)
    return results


def measures(stage: Stage, size: Size, results: Results) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is measured, by the name of its result; what comes later may use what came before."""

    def delivering(poison: str = "", **how: Any) -> Callable[[], Any]:
        return lambda: deliver(stage, backlog(size.events, poison), **how)

    def at_half(of: str, *, delivering: bool) -> Callable[[], Any]:
        rate, seconds = results["take_in"][of]["rate"] / 2, size.taking_in_seconds
        return lambda: at_rate(stage, rate, seconds, delivering=delivering)

    def in_batches(of: int, events: int) -> dict[str, Any]:
        return deliver(stage, backlog(events), change=f"set_batch_size({of})")

    yield "deliver", delivering()
    yield "second", delivering(consumers=(SYNC, SECOND), change="notice_updates_too()")
    yield "garbage", delivering("garbage")
    yield "failure", delivering("failure", change="fail_on_poison()")
    yield "take_in", lambda: take_in(stage, size.taking_in_seconds)
    yield "to_its_row", lambda: to_its_row(stage, size.people_first_seen)
    yield "at_half", at_half("ours", delivering=False)
    yield "both_at_half", at_half("ours_delivering", delivering=True)
    yield "idle", lambda: idle(stage, size.idle_seconds)
    yield "rivals", lambda: rivals(stage, size.events_of_rivals, size.events_to_try)
    batches = size.batches.items()
    yield "batches", lambda: {str(of): in_batches(of, events) for of, events in batches}
    shared = size.events_of_workers
    yield (
        "workers",
        lambda: {str(n): deliver(stage, backlog(shared), workers=n) for n in size.workers},
    )
    yield "stored", lambda: [with_stored(stage, seed, size.windows) for seed in size.stored]
    yield "limit", lambda: limit(stage, size.events_of_limit)
    yield "profiles", lambda: profiles(stage, size.events_of_profile, size.profile_seconds)


def _memories(result: Any) -> Iterator[dict[str, dict[str, float]]]:
    """Every measurement of memory, wherever in the results."""
    if isinstance(result, dict):
        if "memory" in result:
            yield result["memory"]
        result = list(result.values())
    if isinstance(result, list):
        for part in result:
            yield from _memories(part)
