"""`kratos-sync check`, and the JSON that ``--json`` prints.

Keys are only ever added:

    {"file": "kratos.yml", "passed": false,
     "findings": [{"rule": "not-heard", "severity": "error", "line": 12,
                   "path": "selfservice.flows.login.after.password.hooks",
                   "sentence": "…", "remedy": "…"}],
     "coverage": [{"flow": "login", "method": "password", "on": true, "heard": false,
                   "by": "selfservice.flows.login.after.password.hooks"}]}

A severity is ``error``, ``warning`` or ``note``; with an error the check has not passed. ``method``
is null for a flow without methods; ``by`` is the list of hooks that Kratos runs there.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.text import Text

from kratos_sync.api.cli.api import key_header
from kratos_sync.api.cli.options import amount
from kratos_sync.api.cli.output import WIDTH, Table, echo_json, harmless, uncut_console
from kratos_sync.application.kratos_config.check import check as read_through
from kratos_sync.application.kratos_config.findings import Coverage, Finding, Report, Severity
from kratos_sync.application.kratos_config.hooks import METHODS, Receiver
from kratos_sync.application.kratos_config.nodes import ConfigFile, kratos_part, written
from kratos_sync.infrastructure.kratos.config_file import (
    MOST_BYTES,
    JsonnetTemplates,
    UnreadableConfig,
    read_config,
)

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
            ", ".join(_names(c for c in places if c.is_on and c.is_covered)),
            Text(", ".join(_names(c for c in places if c.is_on and not c.is_covered)), "bold red"),
            ", ".join(_names(c for c in places if not c.is_on)),
        )
    return table


def _names(places: Iterator[Coverage]) -> Iterator[str]:
    for covered in places:
        unheard = "" if covered.is_on or covered.is_covered else " (no hook)"
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


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--url", help="Our address, where it does not end in /kratos/sync-identity.")
@click.option("--strict", is_flag=True, help="Exit with 1 for a warning too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def check(file: str, url: str | None, strict: bool, as_json: bool) -> None:
    """Read a Kratos configuration, and list by line what would keep us from hearing of people.

    FILE is YAML or JSON, or - for standard input. Exits with 1 when a flow or a method that is on
    is not heard, when a hook never runs, or when Kratos would refuse to start. Templates in files
    are read, and run in a process of their own. Nothing is called, and no value is shown.
    """
    name = harmless(file)
    templates = JsonnetTemplates(None if file == "-" else Path(file).resolve().parent)
    report = read_through(_config(file, name), Receiver(key_header(), url), templates)
    if as_json:
        echo_json({"file": name, **to_json(report)})
    else:
        print_report(name, report)
    doubtful = any(finding.severity is Severity.WARNING for finding in report.findings)
    if not report.passed or (strict and doubtful):
        raise SystemExit(1)


def to_json(report: Report) -> dict[str, Any]:
    """Give the object that the module's docstring shows, but for the file."""
    return {
        "passed": report.passed,
        "findings": [
            {
                "rule": finding.judgement.rule,
                "severity": finding.severity.value,
                "line": finding.line,
                "path": harmless(written(finding.path)),
                "sentence": harmless(finding.judgement.sentence),
                "remedy": harmless(finding.judgement.remedy),
            }
            for finding in report.findings
        ],
        "coverage": [
            {
                "flow": covered.place.flow,
                "method": covered.place.method,
                "on": covered.is_on,
                "heard": covered.is_covered,
                "by": harmless(written(covered.by)),
            }
            for covered in report.coverage
        ],
    }


def _config(file: str, name: str) -> ConfigFile:
    if name.lower().endswith(".toml"):
        raise click.UsageError("TOML is not read: give Kratos' configuration as YAML or JSON.")
    try:
        with click.open_file(file, "rb") as content:
            part = kratos_part(read_config(content.read(MOST_BYTES + 1)))
    except OSError as error:
        raise click.UsageError(f"{name} cannot be read: {error.strerror}.") from None
    except UnreadableConfig as error:
        raise click.UsageError(f"{name} cannot be read: {harmless(str(error))}.") from None
    if part is None:
        raise click.UsageError(f"{name} is no Kratos configuration: it has no `selfservice`.")
    return part
