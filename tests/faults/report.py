"""The report of a run: a table for people, JSON for machines, and whether it went well."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, get_args

from rich.table import Table

from tests.faults.alerts import EXPECTED, LONGEST_ALERT_SECONDS
from tests.faults.checks import Sort, Wrong
from tests.faults.kinds import KINDS, Kind
from tests.faults.kratos import Call
from tests.faults.run import Outcome, Result

BEFORE_ANY: Final = "(before any fault)"
UNKNOWN: Final = "(when is not known)"
HEADINGS: Final = {"disordered": "order"}


@dataclass(slots=True)
class Line:
    """A kind of fault: how often it was done, what came of it."""

    kind: str
    recovers_in: float = 0.0
    """The longest that its recovery may take, in seconds."""
    times: int = 0
    missed: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    pending: int = 0
    failed: int = 0
    too_late: int = 0
    longest_recovery: float | None = None
    alerts: dict[str, float] = field(default_factory=dict)
    """Each alert that it raised, and the longest time until then in seconds."""
    no_alert: int = 0


def lines(
    outcomes: Sequence[Outcome], wrong: Sequence[Wrong], kinds: Mapping[str, Kind] = KINDS
) -> list[Line]:
    """Give a line for each of the kinds, in their order.

    What is wrong is attributed to the fault that began last before.
    """
    table = {name: Line(name, kind.recovers_in) for name, kind in kinds.items()}
    table |= {name: Line(name) for name in (BEFORE_ANY, UNKNOWN)}
    for outcome in outcomes:
        line = table[outcome.fault.kind]
        line.missed += outcome.missed is not None
        line.times += outcome.missed is None
        if outcome.recovered_in is None or outcome.recovered_in > line.recovers_in:
            line.too_late += 1
        if outcome.recovered_in is not None:
            line.longest_recovery = max(line.longest_recovery or 0, outcome.recovered_in)
        if outcome.alert is not None:
            alert, seconds = outcome.alert
            line.alerts[alert] = max(line.alerts.get(alert, 0.0), seconds)
        elif not isinstance(EXPECTED[outcome.fault.kind], str):
            line.no_alert += 1
    begun = [(outcome.started_at, outcome.fault.kind) for outcome in outcomes]
    counted = Counter((fault_before(each.at, begun), each.sort) for each in wrong)
    for (kind, sort), times in counted.items():
        setattr(table[kind], sort, times)
    return [line for line in table.values() if _is_shown(line)]


def failures(lines: Sequence[Line]) -> Iterator[str]:
    """Say why the run failed, a sentence for each reason; none if it went well."""
    for line in lines:
        for sort in get_args(Sort):
            if number := getattr(line, sort):
                yield f"{line.kind}: {number} {sort}."
        if line.too_late:
            yield f"{line.kind}: {line.too_late} times not recovered in time."
        if line.missed:
            yield f"{line.kind}: {line.missed} times it could not be done."


def table(lines: Sequence[Line]) -> Table:
    """Give the table that people read; a recovery is the longest, of what is allowed."""
    columns = ("times", *get_args(Sort), "recovery")
    headings = [HEADINGS.get(name, name) for name in columns]
    drawn = Table("fault", *headings, box=None, pad_edge=False)
    drawn.columns[0].no_wrap = True
    for column in drawn.columns[1:]:
        column.justify = "right"
    for line in lines:
        longest = "-"
        if line.longest_recovery is not None:
            longest = f"{line.longest_recovery:.1f}/{line.recovers_in:.0f} s"
        numbers = [str(getattr(line, name)) for name in columns[:-1]]
        drawn.add_row(line.kind, *numbers, longest)
    total = [sum(getattr(line, name) for line in lines) for name in columns[:-1]]
    worst = max((line.longest_recovery or 0 for line in lines), default=0)
    drawn.add_section()
    drawn.add_row("all", *map(str, total), f"{worst:.1f} s", style="bold")
    return drawn


def without_alert(lines: Sequence[Line]) -> Iterator[str]:
    """Say which kinds raised no alert within a minute, though one was expected."""
    for line in lines:
        if line.no_alert:
            yield f"{line.kind}: {line.no_alert} times without an alert."
        for alert, seconds in line.alerts.items():
            if seconds > LONGEST_ALERT_SECONDS:
                yield f"{line.kind}: {alert} fired after {seconds:.0f} s."


def alerts_in_markdown(lines: Sequence[Line]) -> str:
    """The table of the documentation: which fault raises which alert, and after how long."""
    rows = ["| fault | alert | after |", "|---|---|---|"]
    for line in lines:
        expected = EXPECTED.get(line.kind, ())
        fired = [
            f"| {line.kind} | {alert} | {seconds:.0f} s |" for alert, seconds in line.alerts.items()
        ]
        why = expected if isinstance(expected, str) else "it was over too soon"
        rows += fired or [f"| {line.kind} | none: {why} | |"]
    return "\n".join(rows)


def calls(sent: Sequence[Call]) -> dict[str, int]:
    """Count the calls: sent, accepted, and dropped by Kratos without an answer of ours."""
    accepted = sum(call.is_accepted for call in sent)
    return {"sent": len(sent), "accepted": accepted, "dropped": len(sent) - accepted}


def to_json(result: Result, seed: int, setting: Mapping[str, Any]) -> str:
    """Give all of it for machines."""
    all_lines = lines(result.outcomes, result.wrong)
    document = {
        "seed": seed,
        **setting,
        "seconds": round(result.seconds, 1),
        "faults": sum(line.times for line in all_lines),
        "calls": calls(result.calls),
        "kinds": [asdict(line) for line in all_lines],
        "wrong": [wrong._asdict() for wrong in result.wrong],
        "outcomes": [asdict(outcome) for outcome in result.outcomes],
    }
    return json.dumps(document, indent=1) + "\n"


def fault_before(at: float | None, begun: Iterable[tuple[float, str]]) -> str:
    """Give the fault that began last before then, of times and names."""
    if at is None:
        return UNKNOWN
    before = [(began, name) for began, name in begun if began <= at]
    return max(before)[1] if before else BEFORE_ANY


def _is_shown(line: Line) -> bool:
    return any((line.times, line.missed, *(getattr(line, sort) for sort in get_args(Sort))))
