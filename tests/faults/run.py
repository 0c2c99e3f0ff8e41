"""Doing what the schedule says, and looking how it ends."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import psycopg

from tests.faults.alerts import EXPECTED, LONGEST_ALERT_SECONDS, raised_by
from tests.faults.checks import Spans, Wrong, what_is_wrong
from tests.faults.effects import effects_elsewhere
from tests.faults.injections import INJECTIONS
from tests.faults.kratos import Call, Kratos
from tests.faults.outside import Outside
from tests.faults.recovery import MOST_SECONDS, seconds_to_recover
from tests.faults.schedule import Fault, Round
from tests.faults.stage import Stage
from tests.waiting import until

SETTLE_SECONDS = 60.0
ALERTS_END_SECONDS = 120.0
LEFT = "SELECT count(*) AS left FROM kratos_sync.deliveries WHERE failed_at IS NULL"
Print = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """What became of a fault; times are the wall clock's seconds."""

    fault: Fault
    started_at: float
    missed: str | None = None
    """Why it could not be done."""
    recovered_in: float | None = None
    """Seconds from its end on; None if there was no recovery."""
    over_at: float | None = None
    """When it had recovered, or was no longer waited for."""
    alert: tuple[str, float] | None = None
    """The alert that it raised, and after how many seconds."""


@dataclass(frozen=True, slots=True)
class Result:
    """A run: its faults, the calls under way meanwhile, what is wrong in the end."""

    outcomes: Sequence[Outcome]
    calls: Sequence[Call]
    wrong: Sequence[Wrong]
    seconds: float


def run(stage: Stage, rounds: Sequence[Round], print_line: Print, *, alone: bool = False) -> Result:
    """Do all faults, round by round; a round begins when the one before has recovered.

    If `alone`, it begins when no alert fires any more.
    """
    began = time.monotonic()
    outcomes: list[Outcome] = []
    for faults in rounds:
        done = _do(stage, faults, print_line)
        outcomes += done
        if alone:
            with suppress(AssertionError):  # it is reported in the end
                until(partial(_has_raised, stage, done), LONGEST_ALERT_SECONDS)
            until(partial(_is_calm, stage), ALERTS_END_SECONDS)
        else:
            _has_raised(stage, done)
    spans = [(each.started_at, each.over_at or inf) for each in outcomes]
    wrong = wrong_in_the_end(stage.url, stage.kratos, stage.elsewhere, spans, print_line)
    return Result(outcomes, stage.kratos.calls, wrong, time.monotonic() - began)


def wrong_in_the_end(
    url: str, kratos: Kratos, elsewhere: Path, faults: Spans, print_line: Print
) -> list[Wrong]:
    """End the calls, wait until all is delivered, and find what is wrong."""
    kratos.stop()
    with Outside(url) as outside:
        try:
            until(lambda: outside.ask(LEFT) == [{"left": 0}], SETTLE_SECONDS)
        except AssertionError:
            print_line("some deliveries are still pending")
    with psycopg.connect(url) as connection:
        return what_is_wrong(connection, kratos.calls, effects_elsewhere(elsewhere), faults)


def _has_raised(stage: Stage, outcomes: Sequence[Outcome]) -> bool:
    """Whether each has raised an alert, if one is expected; notes which."""
    if stage.prometheus is None:
        return True
    firings = stage.prometheus.firing(min(each.started_at for each in outcomes), time.time())
    for each in outcomes:
        each.alert = raised_by(each.fault.kind, each.started_at, firings)
    return all(each.alert or isinstance(EXPECTED[each.fault.kind], str) for each in outcomes)


def _is_calm(stage: Stage) -> bool:
    now = time.time()
    return stage.prometheus is None or not stage.prometheus.firing(now - 2, now)


def _do(stage: Stage, faults: Round, print_line: Print) -> list[Outcome]:
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=_one, args=(stage, fault, outcomes, print_line), daemon=True)
        for fault in faults
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def _one(stage: Stage, fault: Fault, outcomes: list[Outcome], print_line: Print) -> None:
    time.sleep(fault.starts_after)
    outcome = Outcome(fault, time.time())
    outcomes.append(outcome)
    try:
        INJECTIONS[fault.kind](stage, fault)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported, and fails the run
        outcome.missed = f"{type(error).__name__}: {error}"
    with Outside(stage.url) as outside:
        outcome.recovered_in = seconds_to_recover(stage.kratos, outside, MOST_SECONDS)
    outcome.over_at = time.time()
    ending = "did not recover"
    if outcome.recovered_in is not None:
        ending = f"recovered in {outcome.recovered_in:.1f} s"
    missed = "" if outcome.missed is None else f", could not be done: {outcome.missed}"
    print_line(f"{fault}: {ending}{missed}")
