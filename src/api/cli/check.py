"""`kratos-sync check`: finds missing and broken hooks in a Kratos configuration."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from kratos_sync.api.amounts import amount
from kratos_sync.api.cli import options
from kratos_sync.api.cli.hooks import key_header
from kratos_sync.api.cli.output import Line, Styled, echo, echo_json, harmless, rows
from kratos_sync.application.kratos_config.check import Coverage, Report
from kratos_sync.application.kratos_config.check import check as findings_of
from kratos_sync.application.kratos_config.findings import Finding, Severity
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
_NOT_CHECKED: Final = (
    "Not checked: environment variables of Kratos, which override its file, further files, and"
    " templates that are on another machine."
)


def print_report(name: str, report: Report) -> None:
    """Print the report, at most so many findings."""
    groups = _groups(report.findings)
    for group in groups[:MOST_FINDINGS]:
        echo(*_finding(name, group), "")
    if len(groups) > MOST_FINDINGS:
        echo(f"… and {len(groups) - MOST_FINDINGS:,} more.", "")
    counts = Counter(group[0].severity for group in groups)
    echo(*_table(report.coverage), "", _NOT_CHECKED, _summary(counts, passed=report.passed))


def _groups(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Group the findings about one line of the file, which an alias repeats at many places."""
    groups: dict[tuple[int, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.line, finding.sentence), []).append(finding)
    return list(groups.values())


def _finding(name: str, group: Sequence[Finding]) -> Iterator[Line]:
    first = group[0]
    paths = [written(finding.path) for finding in group if finding.path]
    more = f" and {len(paths) - MOST_PATHS} more" if len(paths) > MOST_PATHS else ""
    severity = Styled(first.severity.value, _STYLES[first.severity])
    yield f"{name}:{first.line}: ", severity, f": {first.sentence}"
    if paths:
        yield Styled(f"    at {', '.join(paths[:MOST_PATHS])}{more}", "dim")
    yield f"    {first.remedy}"


def _table(coverage: Sequence[Coverage]) -> Iterator[Line]:
    columns = ("covered", "missing", "off")
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in coverage:
        column = "off" if not each.is_on else "covered" if each.is_covered else "missing"
        no_hook = "" if each.is_on or each.is_covered else " (no hook)"
        names[each.place.flow, column].append(f"{each.place.method or 'yes'}{no_hook}")

    def cells(flow: str) -> tuple[str | Styled, ...]:
        covered, missing, off = (", ".join(names[flow, column]) for column in columns)
        return flow, covered, Styled(missing, "bold red"), off

    return rows(("FLOW", "COVERED", "NOT COVERED", "OFF"), map(cells, METHODS))


def _summary(counts: Mapping[Severity, int], *, passed: bool) -> Line:
    found = ", ".join(amount(counts[each], each.value) for each in Severity if counts[each])
    subject, style = (
        ("Every flow that is on", "bold green") if passed else ("Not every flow", "bold red")
    )
    return Styled(f"{subject} is covered: {found or 'no findings'}.", style)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--url", help="This service's address, if it does not end in /kratos/sync-identity.")
@click.option("--strict", is_flag=True, help="Exit with 1 for a warning too.")
@options.as_json
def check(file: str, url: str | None, strict: bool, as_json: bool) -> None:
    """Check a Kratos configuration for what would make webhooks missing.

    Prints a list by line. FILE is YAML or JSON, or - for standard input. Exits with 1 when a
    flow or a method that is on is not covered, when a hook never runs, or when Kratos would
    refuse to start. Templates in files are read, and run in a process of their own. Nothing is
    called, and no value is shown.
    """
    name = harmless(file)
    templates = JsonnetTemplates(None if file == "-" else Path(file).resolve().parent)
    report = findings_of(_config(file, name), Receiver(key_header(), url), templates)
    if as_json:
        echo_json({"file": name, **to_json(report)})
    else:
        print_report(name, report)
    has_warning = any(finding.severity is Severity.WARNING for finding in report.findings)
    if not report.passed or (strict and has_warning):
        raise SystemExit(1)


def to_json(report: Report) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes, but for the file."""
    return {
        "passed": report.passed,
        "findings": [
            {
                "rule": finding.rule,
                "severity": finding.severity.value,
                "line": finding.line,
                "path": harmless(written(finding.path)),
                "sentence": harmless(finding.sentence),
                "remedy": harmless(finding.remedy),
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
