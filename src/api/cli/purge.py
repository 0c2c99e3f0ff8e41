"""`kratos-sync purge`: removes events and attempts that were kept for long enough."""

from datetime import timedelta
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from kratos_sync.api.amounts import amount, duration
from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import echo, echo_json, status_line
from kratos_sync.api.cli.process import Steps, command_container
from kratos_sync.application.operation_scopes import PurgeScope
from kratos_sync.application.operations import recorded
from kratos_sync.application.ports.operations import How, Operation, OperationRequest, Outcome
from kratos_sync.application.ports.purge import PurgeReport, Removed, Retention

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container


@click.command()
@click.option(
    "--events-older-than",
    type=options.age,
    help="36h, 90d, 12w or forever.  [setting: EVENTS_RETENTION_DAYS]",
)
@click.option(
    "--attempts-older-than", type=options.age, help="Likewise.  [setting: ATTEMPTS_RETENTION_DAYS]"
)
@options.by
@options.why
@options.dry_run
@options.as_json
def purge(
    *,
    events_older_than: timedelta | None,
    attempts_older_than: timedelta | None,
    by: str,
    reason: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove old events and attempts, in small steps.

    The relay does the same by itself. Nothing outstanding is removed: no event with a delivery
    or a dead letter, and none of its attempts. Ctrl-C stops after the step; what was removed
    until then stays so. Exits with 1 if it was stopped, if another purge is running, or if the
    clocks of the database and of this machine are an hour or more apart.
    """
    from kratos_sync.infrastructure.worker.shutdown import exit_when_stopped

    stopped = exit_when_stopped()
    with command_container() as container:
        kept = container.settings().retention
        retention = Retention(
            _or_setting(events_older_than, kept.events),
            _or_setting(attempts_older_than, kept.attempts),
        )
        if dry_run:
            with status_line("Counting…") as show:
                report = container.purge().preview(
                    retention, stopped, lambda removed: show(_counts(removed))
                )
        else:
            scope = PurgeScope.of_retention(retention).to_json()
            request = OperationRequest("purge", by, How.CLI, reason, scope=scope)
            report = purged(container, request, retention, stopped)
    if as_json:
        echo_json(to_json(report, retention, dry_run))
    else:
        events = _part("event", report.removed.events, retention.events)
        attempts = _part("attempt", report.removed.attempts, retention.attempts)
        did = "Would remove" if dry_run else "Removed"
        echo(f"{did}: {events}; {attempts}. It took {duration(report.took)}.")
    if not report.completed:
        raise click.ClickException("It was stopped before the end.")


def purged(
    container: "Container", request: OperationRequest, retention: Retention, stopped: Event
) -> PurgeReport:
    """Purge until done or stopped, recorded as an operation."""
    with (
        status_line("Counting…") as show,
        recorded(container.operations(), request) as operation,
    ):

        def note(removed: Removed) -> None:
            show(_counts(removed))
            operation.advance(sum(removed), **removed._asdict())

        report = container.purge().run(retention, stopped, note)
        if not report.completed:
            operation.ends_as = Outcome.INTERRUPTED
    return report


def resume_purge(container: "Container", past: Operation, request: OperationRequest) -> Steps:
    """Remove what an earlier operation left. Raises CannotBeResumed."""
    from kratos_sync.infrastructure.worker.shutdown import exit_when_stopped

    stopped, steps = exit_when_stopped(), Steps()
    with steps:
        report = purged(container, request, PurgeScope.of(past).retention, stopped)
        steps.done = sum(report.removed)
        steps.ended_early = None if report.completed else "Interrupted"
    return steps


def to_json(report: PurgeReport, retention: Retention, dry_run: bool) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes."""
    removed = report.removed
    return {
        "dry_run": dry_run,
        "completed": report.completed,
        "seconds": report.took,
        "events": {"removed": removed.events, "older_than_seconds": retention.events},
        "attempts": {"removed": removed.attempts, "older_than_seconds": retention.attempts},
    }


def _or_setting(given: timedelta | None, setting: timedelta | None) -> timedelta | None:
    return setting if given is None else None if given == options.FOREVER else given


def _counts(removed: Removed) -> str:
    return f"{amount(removed.events, 'event')}, {amount(removed.attempts, 'attempt')}"


def _part(what: str, removed: int, age: timedelta | None) -> str:
    if age is None:
        return f"no {what}s, kept for ever"
    return f"{amount(removed, what)} older than {duration(age)}"
