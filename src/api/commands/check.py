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

from pathlib import Path
from typing import Any

import click

from api.commands.check_report import print_report
from api.commands.quoting import echo_json, harmless
from api.commands.webhook_settings import key_header
from application.kratos_config.check import check as read_through
from application.kratos_config.findings import Report, Severity
from application.kratos_config.hook import Receiver
from application.kratos_config.location import kratos_part
from application.kratos_config.nodes import ConfigFile, written
from infrastructure.kratos_config import MOST_BYTES, UnreadableConfig, read_config
from infrastructure.kratos_templates import KratosTemplates


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
    templates = KratosTemplates(None if file == "-" else Path(file).resolve().parent)
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
                "heard": covered.is_heard,
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
