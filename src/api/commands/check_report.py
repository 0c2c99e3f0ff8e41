"""What `kratos-sync check` tells a person: every finding, then who is heard and who is not."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from api.commands.terminal import WIDTH, Table, uncut_console
from api.commands.units import amount
from application.kratos_config.findings import Coverage, Finding, Report, Severity
from application.kratos_config.flows import METHODS
from application.kratos_config.nodes import written

MOST_FINDINGS: Final = 200
MOST_PATHS: Final = 3
_STYLES: Final = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}
_UNSEEN: Final = (
    "Not looked at: environment variables of Kratos, which override its file, further files, and"
    " templates that are on another machine."
)


def print_report(name: str, report: Report) -> None:
    """Print the report on standard output, at most so many findings."""
    console = uncut_console()
    console.width = max(console.width, WIDTH)
    groups = _groups(report.findings)
    for group in groups[:MOST_FINDINGS]:
        for line in _finding(name, group):
            console.print(line)
        console.print()
    if len(groups) > MOST_FINDINGS:
        console.print(f"… and {len(groups) - MOST_FINDINGS:,} more.")
        console.print()
    console.print(_table(report.coverage))
    console.print()
    console.print(_UNSEEN)
    console.print(_verdict(report))


def _groups(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Put together what is one line of the file, which an alias repeats at many places."""
    groups: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.line, finding.judgement.sentence), []).append(finding)
    return list(groups.values())


def _finding(name: str, group: Sequence[Finding]) -> Iterator[Text]:
    first = group[0]
    paths = [written(finding.path) for finding in group if finding.path]
    more = f" and {len(paths) - MOST_PATHS} more" if len(paths) > MOST_PATHS else ""
    text = Text(f"{name}:{first.line}: ")
    text.append(first.severity.value, _STYLES[first.severity])
    text.append(f": {first.judgement.sentence}")
    yield text
    if paths:
        yield Text(f"    at {', '.join(paths[:MOST_PATHS])}{more}", "dim")
    yield Text(f"    {first.judgement.remedy}")


def _table(coverage: Sequence[Coverage]) -> Table:
    table = Table()
    for heading in ("FLOW", "HEARD", "NOT HEARD", "OFF"):
        table.add_column(heading)
    for flow in METHODS:
        places = [covered for covered in coverage if covered.place.flow == flow]
        table.add_row(
            flow,
            ", ".join(_names(c for c in places if c.is_on and c.is_heard)),
            Text(", ".join(_names(c for c in places if c.is_on and not c.is_heard)), "bold red"),
            ", ".join(_names(c for c in places if not c.is_on)),
        )
    return table


def _names(places: Iterator[Coverage]) -> Iterator[str]:
    for covered in places:
        unheard = "" if covered.is_on or covered.is_heard else " (no hook)"
        yield f"{covered.place.method or 'yes'}{unheard}"


def _verdict(report: Report) -> Text:
    counts = [
        amount(number, severity.value)
        for severity in Severity
        if (number := sum(group[0].severity is severity for group in _groups(report.findings)))
    ]
    found = ", ".join(counts) or "nothing to find fault with"
    if report.passed:
        return Text(f"Everything that is on is heard: {found}.", "bold green")
    return Text(f"Not everything is heard: {found}.", "bold red")
