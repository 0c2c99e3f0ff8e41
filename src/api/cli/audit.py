"""`kratos-sync audit`: what people and schedules changed; stops what runs, resumes what stopped."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Final

import click

from kratos_sync.api.amounts import duration, moment
from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import Line, Styled, echo, echo_json, rows
from kratos_sync.api.cli.process import Steps, command_container
from kratos_sync.api.views import operation_about, operation_done, operation_state
from kratos_sync.application.operations import STOP, recorded, request_stop
from kratos_sync.application.ports.operations import (
    RESUMABLE,
    How,
    Operation,
    OperationFilter,
    OperationRequest,
    Outcome,
)

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container

Resume = Callable[["Container", Operation, OperationRequest], Steps]
STYLES: Final = {
    Outcome.RUNNING: "bold",
    Outcome.COMPLETED: "green",
    Outcome.FAILED: "bold red",
    Outcome.CANCELLED: "yellow",
    Outcome.INTERRUPTED: "bold red",
}
LONGEST_REASON_SHOWN: Final = 60
operation_id = click.argument("operation_id", metavar="ID", type=click.IntRange(1))


@click.group(invoke_without_command=True)
@options.time("--since", help="Only those that began since then: 15min, 2h, 7d ago; 2026-11-23.")
@click.option("--operation", metavar="NAME", help="Only these: retry, discard, replay, purge, ….")
@click.option("--by", metavar="NAME", help="Only those that this person requested.")
@click.option("--running", is_flag=True, help="Only those that run now.")
@options.limit(50, 10_000, help="How many, the newest first.")
@click.option("--before", type=click.IntRange(1), metavar="ID", help="Only those before this one.")
@options.as_json
@click.pass_context
def audit(
    ctx: click.Context,
    *,
    since: options.Time | None,
    operation: str | None,
    by: str | None,
    running: bool,
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """List what people and schedules changed: who, what, why and when.

    The newest first. An operation whose process died reads as interrupted.
    """
    if ctx.invoked_subcommand is not None:
        return
    with command_container(migrated=False) as container:
        operations = container.operations()
        at = operations.now()
        wanted = OperationFilter(operation, by, options.resolved(since, at), running)
        found = operations.newest(wanted, limit + 1, before)
    shown = found[:limit]
    next_before = shown[-1].id if len(found) > limit else None
    if as_json:
        echo_json(to_json(at, shown, next_before))
        return
    echo(*table(shown))
    if next_before is not None:
        echo("", f"More: --before {next_before}")


@audit.command()
@operation_id
@options.by
@options.why
def cancel(operation_id: int, by: str, reason: str | None) -> None:
    """Ask the operation ID to stop; it does so after its step, and what it did stays done.

    That it was asked, and why, is an operation `stop` of its own.
    """
    with command_container() as container:
        operations = container.operations()
        found = _found(container, operation_id)
        if found.outcome is not Outcome.RUNNING:
            raise click.ClickException(f"Operation {operation_id} is {operation_state(found)}.")
        scope = {"operation": operation_id}
        with recorded(operations, OperationRequest(STOP, by, How.CLI, reason, scope=scope)) as stop:
            is_asked = request_stop(operations, operation_id, stop)
    how = "is asked to stop" if is_asked else "was asked before to stop"
    echo(f"Operation {operation_id} ({found.operation} by {found.by}) {how}.")


@audit.command()
@operation_id
@options.by
@options.why
@options.yes
def resume(operation_id: int, by: str, reason: str | None, yes: bool) -> None:
    """Resume the operation ID where it stopped, as an operation of its own.

    A retry, discard, replay, purge or reconciliation that failed, was cancelled or was
    interrupted. If its process died, the last seconds of a replay may be replayed once more.
    """
    with command_container() as container:
        past = _found(container, operation_id)
        if past.outcome not in RESUMABLE:
            raise click.ClickException(f"Operation {operation_id} is {operation_state(past)}.")
        carry_out = _resumer(past.operation)
        if carry_out is None:
            raise click.ClickException(f"Repeat `kratos-sync {past.operation}` instead.")
        echo(*table([past]), "")
        options.confirm(f"Resume operation {operation_id}?", yes)
        request = OperationRequest(
            past.operation,
            by,
            How.CLI,
            reason or past.reason,
            past.subject,
            past.consumer,
            past.scope,
            resumes=past.id,
        )
        steps = carry_out(container, past, request)
    echo(f"Operation {operation_id} was resumed: {steps.done:,} done.")
    if steps.ended_early:
        raise click.ClickException(f"{steps.ended_early}.")


def _resumer(operation: str) -> Resume | None:
    from kratos_sync.api.cli.failed import resume_decision
    from kratos_sync.api.cli.purge import resume_purge
    from kratos_sync.api.cli.reconcile import resume_reconcile
    from kratos_sync.api.cli.replay import resume_replay

    resumers: dict[str, Resume] = {
        "retry": resume_decision,
        "discard": resume_decision,
        "replay": resume_replay,
        "purge": resume_purge,
        "reconcile": resume_reconcile,
    }
    return resumers.get(operation)


def _found(container: "Container", operation_id: int) -> Operation:
    found = container.operations().find(operation_id)
    if found is None:
        raise click.ClickException(f"There is no operation {operation_id}.")
    return found


def to_json(
    at: datetime, operations: Sequence[Operation], next_before: int | None
) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes."""
    return {"at": at, "operations": operations, "next_before": next_before}


def in_one_line(operation: Operation, at: datetime) -> str:
    """Write what runs, or died, in one line."""
    about = f" on {on}" if (on := operation_about(operation)) else ""
    done = f", {numbers}" if (numbers := operation_done(operation)) else ""
    how_to = ""
    if operation.outcome is Outcome.INTERRUPTED:
        how_to = f": `kratos-sync audit resume {operation.id}` goes on"
    since = duration(at - operation.started_at, units=1)
    return (
        f"{operation.id} {operation.operation} by {operation.by}{about}{done},"
        f" {operation_state(operation)}, begun {since} ago{how_to}"
    )


def table(operations: Sequence[Operation]) -> Iterator[Line]:
    """Yield a row for each operation."""
    if not operations:
        yield "No operations."
        return
    headings = ("ID", "STARTED", "OPERATION", "BY", "DONE", "TOOK", "OUTCOME", "REASON", "ON")

    def cells(each: Operation) -> tuple[str, ...]:
        by = each.by if each.how is How.CLI else f"{each.by} ({each.how})"
        took = duration((each.ended_at or each.seen_at) - each.started_at)
        return (
            str(each.id),
            moment(each.started_at),
            each.operation,
            by,
            operation_done(each),
            took,
            Styled(operation_state(each), STYLES[each.outcome]),
            shorten(each.reason or "", LONGEST_REASON_SHOWN, placeholder="…"),
            operation_about(each),
        )

    yield from rows(headings, map(cells, operations), right=("ID", "TOOK"))
