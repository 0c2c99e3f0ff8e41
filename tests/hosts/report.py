"""The report of a run on several hosts: a table for people, and whether it went well."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, get_args

from rich.table import Table

from tests.faults.checks import Sort
from tests.faults.report import fault_before
from tests.hosts.faults import Fault
from tests.hosts.run import Result

COLUMNS: Final = ("goes on after", "well after its end", "longest call")
COMPARED: Final = ("missing", "unseen", "gone", "unreadable")
"""What a comparison with Kratos counts; every one of them should be none."""
NOT_IN_WEBHOOKS: Final = "metadata_admin"


def rows(result: Result) -> list[Sequence[str]]:
    """Give a row for each fault, and one for whatever else is wrong."""
    begun = [(each.began_at, each.name) for each in result.outcomes]
    counted = Counter((fault_before(wrong.at, begun), wrong.sort) for wrong in result.wrong)
    seconds = {
        each.name: tuple(
            "-" if after is None else f"{after:.1f} s"
            for after in (
                each.goes_on_after,
                each.well_after,
                each.longest_call(result.calls),
            )
        )
        for each in result.outcomes
    }
    names = dict.fromkeys([*seconds, *(name for name, _ in counted)])
    return [
        (
            name,
            *seconds.get(name, ("-",) * len(COLUMNS)),
            *(str(counted[name, sort]) for sort in get_args(Sort)),
        )
        for name in names
    ]


def table(result: Result) -> Table:
    """Give the table that people read."""
    drawn = Table("fault", *COLUMNS, *get_args(Sort), box=None, pad_edge=False)
    drawn.columns[0].no_wrap = True
    for column in drawn.columns[1:]:
        column.justify = "right"
    for row in rows(result):
        drawn.add_row(*row)
    return drawn


def in_markdown(result: Result) -> str:
    """The table of the documentation."""
    cells = [["fault", *COLUMNS, *get_args(Sort)], *map(list, rows(result))]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|---" * len(cells[0]) + "|", *lines[1:]])


def failures(result: Result, faults: Mapping[str, Fault]) -> Iterator[str]:
    """Say why the run failed, a sentence for each reason; none if it went well."""
    for outcome in result.outcomes:
        fault = faults[outcome.name]
        if fault.goes_on_in is not None and _is_late(outcome.goes_on_after, fault.goes_on_in):
            yield f"{outcome.name}: it did not go on within {fault.goes_on_in:.0f} s."
        if _is_late(outcome.well_after, fault.recovers_in):
            yield f"{outcome.name}: not well within {fault.recovers_in:.0f} s after its end."
    for sort, times in Counter(wrong.sort for wrong in result.wrong).items():
        yield f"{times} {sort}."
    for what in COMPARED:
        if result.compared[what]:
            yield f"{result.compared[what]} identities are {what}, compared with Kratos."
    for field, times in result.compared["fields"].items():
        if field != NOT_IN_WEBHOOKS:
            yield f"{times} identities have another {field} than in Kratos."


def _is_late(seconds: float | None, most: float) -> bool:
    return seconds is None or seconds > most
