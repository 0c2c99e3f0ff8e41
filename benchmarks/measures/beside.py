"""Measuring several times, one beside the other: the machine's speed changes from minute to minute.

Of runs a minute apart only those made in turns are comparable, and of their ratios the median.
"""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

Result = dict[str, Any]
Measure = Callable[[], Result]
KEPT = ("events", "seconds", "rate", "pace", "memory")


def brief(run: Result) -> Result:
    """What is kept of a run that is one of many."""
    return {name: run[name] for name in KEPT}


def repeated(measure: Measure, times: int) -> Result:
    """Of so many runs (an odd number) the one whose rate is the median, and all in brief."""
    runs = [measure() for _ in range(times)]
    middle = sorted(runs, key=lambda run: run["rate"])[times // 2]
    kept = {name: value for name, value in middle.items() if name != "pace"}
    return {**kept, "runs": [brief(run) for run in runs]}


def in_turns(measures: Mapping[str, Measure], times: int) -> dict[str, Result]:
    """Measure each so many times, taking turns; of each its median rate, and all in brief."""
    runs: dict[str, list[Result]] = {name: [] for name in measures}
    for _ in range(times):
        for name, measure in measures.items():
            runs[name].append(brief(measure()))
    return {
        name: {"rate": median(run["rate"] for run in of), "runs": of} for name, of in runs.items()
    }


def beside(plain: Measure, measure: Measure, times: int) -> Result:
    """Take turns with the plain run; ``ratio`` is the median of what each was of its own."""
    measured = in_turns({"plain": plain, "measured": measure}, times)
    pairs = zip(measured["plain"]["runs"], measured["measured"]["runs"], strict=True)
    ratios = [round(other["rate"] / own["rate"], 3) for own, other in pairs]
    return {
        "rate": measured["measured"]["rate"],
        "ratio": median(ratios),
        "ratios": ratios,
        **{name: of["runs"] for name, of in measured.items()},
    }
