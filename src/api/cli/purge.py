"""`kratos-sync purge`, and the JSON that ``--json`` prints.

Durations are seconds; keys are only ever added:

    {"dry_run": false, "completed": true, "seconds": 4.2,
     "events": {"removed": 1204, "older_than_seconds": 7776000.0},
     "attempts": {"removed": 3210, "older_than_seconds": 2592000.0}}

``older_than_seconds`` is null for what is kept for ever. With ``dry_run`` nothing was removed, and
``removed`` says how many would be. ``completed`` is false when it was stopped before the end.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import click

from kratos_sync.api.cli.options import FOREVER, Age, amount, duration, seconds
from kratos_sync.api.cli.output import HarmlessConsole, echo, echo_json
from kratos_sync.api.cli.process import expected_errors, opened_container
from kratos_sync.application.ports.purge import (
    AnotherPurge,
    ClocksDiffer,
    Purge,
    PurgeReport,
    Removed,
    Retention,
)
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.worker.shutdown import exit_when_stopped


@click.command()
@click.option(
    "--events-older-than",
    type=Age(),
    help="36h, 90d, 12w or forever.  [setting: EVENTS_RETENTION_DAYS]",
)
@click.option(
    "--attempts-older-than", type=Age(), help="Likewise.  [setting: ATTEMPTS_RETENTION_DAYS]"
)
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def purge(
    events_older_than: timedelta | None,
    attempts_older_than: timedelta | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove old events and attempts, in small steps; the relay does the same by itself.

    Nothing goes that is outstanding: no event with a delivery or a dead letter, and none of its
    attempts. Ctrl-C stops after the step; what was removed until then stays so. Exits with 1 if it
    was stopped, if another purge is at work, or if the clocks of the database and of this machine
    are an hour or more apart.
    """
    stopped = exit_when_stopped()
    with opened_container() as container, expected_errors():
        kept = container.settings().retention
        retention = Retention(
            _or_setting(events_older_than, kept.events),
            _or_setting(attempts_older_than, kept.attempts),
        )
        report = _purge(container.purge(), retention, stopped, dry_run)
    if as_json:
        echo_json(to_json(report, retention, dry_run))
    else:
        echo(_in_words(report, retention, dry_run))
    if not report.completed:
        raise click.ClickException("It was stopped before the end.")


def to_json(report: PurgeReport, retention: Retention, dry_run: bool) -> dict[str, Any]:
    """Give the object that the module's docstring shows."""
    return {
        "dry_run": dry_run,
        "completed": report.completed,
        "seconds": seconds(report.took),
        "events": {
            "removed": report.removed.events,
            "older_than_seconds": seconds(retention.events),
        },
        "attempts": {
            "removed": report.removed.attempts,
            "older_than_seconds": seconds(retention.attempts),
        },
    }


def _or_setting(given: timedelta | None, setting: timedelta | None) -> timedelta | None:
    return setting if given is None else None if given == FOREVER else given


def _purge(
    purge: Purge, retention: Retention, stopped: threading.Event, dry_run: bool
) -> PurgeReport:
    do = purge.preview if dry_run else purge.run
    try:
        with _progress() as told:
            return do(retention, stopped, told)
    except (AnotherPurge, ClocksDiffer) as error:
        raise click.ClickException(f"Not done: {error}.") from None
    except ConcurrencyConflict as error:
        raise click.ClickException(f"PostgreSQL was too busy ({error}): try again.") from None


@contextmanager
def _progress() -> Iterator[Callable[[Removed], None]]:
    console = HarmlessConsole(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("Looking…") as line:
        yield lambda removed: line.update(_rows(removed))


def _rows(removed: Removed) -> str:
    return f"{amount(removed.events, 'event')}, {amount(removed.attempts, 'attempt')}"


def _in_words(report: PurgeReport, retention: Retention, dry_run: bool) -> str:
    removed = report.removed
    events = _part("event", removed.events, retention.events)
    attempts = _part("attempt", removed.attempts, retention.attempts)
    did = "Would remove" if dry_run else "Removed"
    return f"{did}: {events}; {attempts}. It took {duration(report.took)}."


def _part(what: str, removed: int, age: timedelta | None) -> str:
    if age is None:
        return f"no {what}s, kept for ever"
    return f"{amount(removed, what)} older than {duration(age)}"
