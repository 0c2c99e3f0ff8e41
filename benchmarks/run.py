"""One run: every measure, one after the other, each on empty tables."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any

from benchmarks.filling import SYNC
from benchmarks.machine import machine
from benchmarks.measures.beside import beside, in_turns, repeated
from benchmarks.measures.console import console
from benchmarks.measures.deliver import SECOND, backlog, deliver
from benchmarks.measures.idle import idle
from benchmarks.measures.latency import at_rate, to_its_row
from benchmarks.measures.limit import limit
from benchmarks.measures.pause import pause
from benchmarks.measures.profiles import profiles
from benchmarks.measures.rivals import rivals
from benchmarks.measures.stored import with_stored
from benchmarks.measures.take_in import take_in
from benchmarks.pace import found, pace
from benchmarks.rivals.field import FIELD
from benchmarks.sizes import Size
from benchmarks.stage import Stage
from benchmarks.watch import merged

Results = dict[str, Any]
Measure = Callable[[], Any]
WORKERS = (1, 2)


def run(stage: Stage, size: Size, say: Callable[[str], None]) -> Results:
    """Measure everything, and give what JSON can hold. Raises WrongResult."""
    began = perf_counter()
    results: Results = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "size": size.name,
        "machine": machine(stage),
    }
    speed: dict[str, dict[str, Any]] = {}
    for name, measure in measures(stage, size, results):
        before, started = pace(), perf_counter()
        results[name] = measure()
        seconds = round(perf_counter() - started, 1)
        speed[name] = {"seconds": seconds, "paces": [before, *found(results[name], "pace")]}
        say(f"{name:<12} {seconds:6.1f} s")
    results["memory"] = merged(*found(results, "memory"))
    results["speed"] = relative(speed)
    results["seconds"] = round(perf_counter() - began)
    return results


def relative(speed: Mapping[str, Mapping[str, Any]]) -> Results:
    """The machine's paces before and in each measure, as parts of the best in the run."""
    best = max(pace for of in speed.values() for pace in of["paces"])
    return {
        name: {
            "seconds": of["seconds"],
            "of_the_best": [round(pace / best, 2) for pace in of["paces"]],
        }
        for name, of in speed.items()
    }


def measures(stage: Stage, size: Size, results: Results) -> Iterator[tuple[str, Measure]]:
    """What is measured, by the name of its result; what comes later may use what came before."""

    def plain(events: int = size.events_of_pairs, **how: Any) -> Any:
        return deliver(stage, backlog(events), **how)

    def paired(failing_by: str = "", **how: Any) -> Measure:
        def measure() -> Any:
            return deliver(stage, backlog(size.events_of_pairs, failing_by), **how)

        return lambda: beside(plain, measure, size.pairs)

    def ordered(*, in_order: bool) -> Measure:
        change = "notice_updates_in_order()" if in_order else "notice_updates_too()"
        waiting = partial(backlog, size.events_of_pairs)
        return lambda: deliver(stage, waiting(), (SECOND,), change, in_order=in_order)

    def at_half(of: str, *, delivering: bool) -> Measure:
        rate, seconds = results["take_in"][of]["rate"] / 2, size.taking_in_seconds
        return lambda: at_rate(stage, rate, seconds, delivering=delivering)

    def ours() -> Any:
        events = size.events_beside_rivals
        return plain(events) if events else results["deliver"]["runs"][0]

    def one_at_a_time() -> Any:
        events = size.events_beside_rivals or size.events_of_pairs
        return plain(events, change="sync_one_at_a_time()")

    yield "deliver", lambda: repeated(lambda: plain(size.events), size.runs)
    yield "second", paired(consumers=(SYNC, SECOND), change="notice_updates_too()")
    sides = ordered(in_order=False), ordered(in_order=True)
    yield "ordered", lambda: beside(*sides, size.pairs)
    yield "no_broker", paired(without_broker=True)
    yield "garbage", paired("garbage")
    yield "failure", paired("failure", change="fail_on_some()")
    rounds = size.rounds, size.round_seconds, size.taking_in_seconds
    yield "take_in", lambda: take_in(stage, *rounds)
    yield "to_its_row", lambda: to_its_row(stage, size.people_first_seen)
    yield "at_half", at_half("ours", delivering=False)
    yield "both_at_half", at_half("ours_delivering", delivering=True)
    steady = results["take_in"]["ours_delivering"]["rate"] / 4
    yield "pause", lambda: pause(stage, steady, size.pauses, size.pause_seconds)
    yield "idle", lambda: idle(stage, size.idle_seconds)
    yield "rivals", lambda: rivals(stage, size.events_of_rivals, size.events_to_try, ours)
    yield (
        "one_at_a_time",
        lambda: rivals(stage, size.events_of_rivals, size.events_to_try, one_at_a_time, FIELD[:1])[
            0
        ],
    )
    batches = {
        str(of): partial(plain, events, change=f"set_batch_size({of})")
        for of, events in size.batches.items()
    }
    yield "batches", lambda: in_turns(batches, 1)
    workers = {str(n): partial(plain, size.events_of_workers, workers=n) for n in WORKERS}
    yield "workers", lambda: in_turns(workers, size.pairs)
    yield "stored", lambda: [with_stored(stage, s, size.windows, plain) for s in size.stored]
    yield "console", lambda: console(stage, size.console)
    yield "limit", lambda: limit(stage, size.events_of_limit)
    yield "profiles", lambda: profiles(stage, size.events_of_profile, size.profile_seconds)
