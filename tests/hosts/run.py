"""Doing the faults one after another, and looking how each ends."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from tests.faults.checks import Wrong
from tests.faults.kratos import Call
from tests.faults.outside import Outside
from tests.faults.recovery import MOST_SECONDS, seconds_to_recover
from tests.faults.run import wrong_in_the_end
from tests.hosts.faults import Fault
from tests.hosts.stage import Stage
from tests.waiting import until

Print = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """What became of a fault; times are the wall clock's, the others are seconds."""

    name: str
    began_at: float
    goes_on_after: float | None = None
    """From its beginning, until all was well although it lasted; None if it was not."""
    ended_at: float = inf
    well_after: float | None = None
    """From its end, until all was well; None if it was not."""
    over_at: float = inf

    def longest_call(self, calls: Sequence[Call]) -> float:
        """Seconds that Kratos waited longest for a call meanwhile, with all its attempts."""
        waited = [
            call.answered_at - call.sent_at
            for call in calls
            if call.answered_at
            and call.answered_at >= self.began_at
            and call.sent_at < self.over_at
        ]
        return max(waited, default=0.0)


@dataclass(frozen=True, slots=True)
class Result:
    """A run: its faults, the calls meanwhile, what is wrong in the end."""

    outcomes: Sequence[Outcome]
    calls: Sequence[Call]
    wrong: Sequence[Wrong]
    compared: Mapping[str, Any]
    """What a comparison with Kratos' identities found in the end."""


def run(stage: Stage, faults: Mapping[str, Fault], print_line: Print) -> Result:
    """Do all faults, each when the one before has recovered."""
    _well_after(stage)
    outcomes = [_do(stage, name, fault, print_line) for name, fault in faults.items()]
    spans = [(each.began_at, each.over_at) for each in outcomes]
    wrong = wrong_in_the_end(stage.url, stage.kratos, stage.elsewhere, spans, print_line)
    return Result(outcomes, stage.kratos.calls, wrong, stage.compare())


def _do(stage: Stage, name: str, fault: Fault, print_line: Print) -> Outcome:
    outcome = Outcome(name, time.time())
    fault.begin(stage)
    try:
        if fault.goes_on_in is not None:
            outcome.goes_on_after = _well_after(stage)
        time.sleep(max(outcome.began_at + fault.seconds - time.time(), 0))
    finally:
        fault.end(stage)
    outcome.ended_at = time.time()
    outcome.well_after = _well_after(stage)
    outcome.over_at = time.time()
    print_line(
        f"{name}: goes on after {_shown(outcome.goes_on_after)},"
        f" all is well {_shown(outcome.well_after)} after its end"
    )
    return outcome


def _well_after(stage: Stage) -> float | None:
    """The seconds until all is well, and some relay exports the metrics of the ledger."""
    began = time.monotonic()
    with Outside(stage.url) as outside:
        if seconds_to_recover(stage.kratos, outside, MOST_SECONDS) is None:
            return None
    try:
        until(stage.exporting, MOST_SECONDS)
    except AssertionError:
        return None
    return time.monotonic() - began


def _shown(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
