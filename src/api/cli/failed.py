"""`kratos-sync failed`: list, show, retry and discard dead letters."""

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Unpack
from uuid import UUID

import click
import structlog

from kratos_sync.api.amounts import amount
from kratos_sync.api.cli import options
from kratos_sync.api.cli.dead_letters import (
    Filters,
    filter_of,
    filters,
    group_lines,
    groups_json,
    list_,
    show,
)
from kratos_sync.api.cli.output import echo, echo_json
from kratos_sync.api.cli.process import Steps, carried_out, command_container
from kratos_sync.application.actions import DISCARD, RETRY
from kratos_sync.application.operation_scopes import DeadLetterScope
from kratos_sync.application.ports.dead_letters import DeadLetterFilter, DeadLetterGroups
from kratos_sync.application.ports.operations import How, Operation, OperationRequest

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container

MOST_GROUPS = 20
PARTICIPLES = {RETRY: "retried", DISCARD: "discarded"}

log = structlog.get_logger()


@click.group()
def failed() -> None:
    """List, show, retry or discard dead letters.

    A delivery that used up its attempts is a dead letter: it is kept, and not tried again, until
    somebody retries or discards it.
    """


failed.add_command(list_)
failed.add_command(show)


class Choice(Filters):
    """The values of the arguments and options that `retry` and `discard` share."""

    event_id: UUID | None
    every: bool
    by: str
    dry_run: bool
    yes: bool
    as_json: bool


_choice = options.together(
    click.argument("event_id", metavar="[EVENT_ID]", type=click.UUID, required=False),
    click.option("--all", "every", is_flag=True, help="All dead letters, or all that match."),
    filters,
    options.by,
    options.dry_run,
    options.yes,
    options.as_json,
)


@failed.command()
@_choice
@click.option("--rate", type=click.IntRange(1, 100_000), metavar="N", help="Most per second.")
@options.why
def retry(*, rate: int | None, reason: str | None, **choice: Unpack[Choice]) -> None:
    """Retry dead letters, from their first attempt on: that of EVENT_ID, or --all.

    Prints what matches, then asks. What fails while the command runs is not retried again.
    """
    _decide(RETRY, choice, reason, rate)


@failed.command()
@_choice
@options.reason
def discard(*, reason: str, **choice: Unpack[Choice]) -> None:
    """Discard dead letters for good: that of EVENT_ID, or --all.

    Prints what matches, then asks. Who did it and why is logged with each of them, and shown by
    `kratos-sync history`.
    """
    _decide(DISCARD, choice, reason)


def _decide(operation: str, choice: Choice, reason: str | None, rate: int | None = None) -> None:
    """Retry or discard what is chosen, unless it is a dry run.

    Raises click.ClickException if it ended early: what was done until then stays done.
    """
    participle = PARTICIPLES[operation]
    by, dry_run, as_json, steps = choice["by"], choice["dry_run"], choice["as_json"], Steps()
    with command_container() as container:
        dead_letters = container.dead_letters()
        at = dead_letters.now()
        wanted = _chosen(container, choice, at)
        groups = dead_letters.groups(wanted, MOST_GROUPS)
        number = groups.dead_letters
        if choice["event_id"] is not None:
            _require_one(choice["event_id"], choice["consumer"], groups)
        echo(*group_lines(groups, at, verbose=False), err=as_json)
        if number and not dry_run:
            question = f"{operation.capitalize()} {amount(number, 'dead letter')}?"
            options.confirm(question, choice["yes"])
            scope = DeadLetterScope.of_filter(wanted, rate).to_json()
            request = OperationRequest(
                operation, by, How.CLI, reason, consumer=wanted.consumer, scope=scope
            )
            decide = partial(container.actions().decide, wanted, rate=rate)
            steps = carried_out(container, request, decide, number, request.operation.capitalize())
        if steps.done:
            log.info(
                "dead_letters_decided_on",
                decision=participle,
                by=by,
                reason=reason,
                consumers=sorted({group.consumer for group in groups.groups}),
                deliveries=steps.done,
            )
        left = number - steps.done
        if left and not dry_run and not steps.ended_early:
            left = dead_letters.count(wanted)
    if as_json:
        echo_json(
            {
                **groups_json(groups, verbose=False),
                "dry_run": dry_run,
                "by": by,
                "done": steps.done,
                "left": left,
                "interrupted": steps.ended_early is not None,
            }
        )
    elif dry_run and number:
        echo(f"A dry run: nothing was {participle}.")
    elif number and not steps.ended_early:
        locked = f" {left:,} left as they were: somebody else has them locked." if left else ""
        echo(f"{participle.capitalize()} {amount(steps.done, 'dead letter')}.{locked}")
    if steps.ended_early:
        raise click.ClickException(
            f"{steps.ended_early}: {steps.done:,} of {amount(number, 'dead letter')}"
            f" {participle}; run the same command again for the others."
        )


def _chosen(container: "Container", choice: Choice, at: datetime) -> DeadLetterFilter:
    event_id = choice["event_id"]
    if (event_id is None) != choice["every"]:
        raise click.UsageError("give either an EVENT_ID, or --all, which filters narrow.")
    if event_id is not None and (choice["event"] or choice["exception"] or choice["since"]):
        raise click.UsageError("with an EVENT_ID there is nothing to filter but --consumer.")
    return filter_of(container, choice, at, event_id)


def _require_one(event_id: UUID, consumer: str | None, found: DeadLetterGroups) -> None:
    if not found.dead_letters:
        where = f" at {consumer}" if consumer else ""
        raise click.ClickException(f"There is no dead letter of the event {event_id}{where}.")
    if found.dead_letters > 1:
        names = ", ".join(sorted(group.consumer for group in found.groups))
        raise click.UsageError(f"the event failed at {names}: say which with --consumer.")


def resume_decision(container: "Container", past: Operation, request: OperationRequest) -> Steps:
    """Retry or discard what an earlier operation left. Raises ScopeNotKept, CannotBeResumed."""
    scope = DeadLetterScope.of(past)
    dead_letters = container.dead_letters()
    wanted = scope.find(past.consumer, dead_letters)
    number = dead_letters.count(wanted)
    decide = partial(container.actions().decide, wanted, rate=scope.rate)
    return carried_out(container, request, decide, number, request.operation.capitalize())
