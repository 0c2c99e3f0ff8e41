"""`kratos-sync failed`: list, show, retry and discard dead letters."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import ParamSpec, TypeVar, Unpack
from uuid import UUID

import click
import structlog

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
from kratos_sync.api.cli.output import amount, echo, echo_json, progress
from kratos_sync.api.cli.process import command_container
from kratos_sync.api.cli.stopping import Steps
from kratos_sync.application.ports.dead_letters import (
    DeadLetterFilter,
    DeadLetterGroups,
    DeadLetters,
)
from kratos_sync.application.rate_limiter import RateLimiter
from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals

STEP = 4_000
"""Dead letters in one transaction: enough to be quick, few enough not to block others."""
MOST_GROUPS = 20

P = ParamSpec("P")
R = TypeVar("R")
log = structlog.get_logger()


@click.group()
def failed() -> None:
    """List, show, retry or discard dead letters.

    A delivery that used up its attempts is a dead letter: it is kept, and not tried again, until
    somebody retries or discards it.
    """


failed.add_command(list_)
failed.add_command(show)


@dataclass(slots=True)
class Decision(Steps):
    """What somebody decided about dead letters, and how many it was carried out for."""

    participle: str = ""
    by: str = ""
    reason: str | None = None
    rate: int | None = None
    groups: DeadLetterGroups = field(default_factory=lambda: DeadLetterGroups(0, 0, ()))


class Choice(Filters):
    """The values of the arguments and options that `retry` and `discard` share."""

    event_id: UUID | None
    every: bool
    by: str
    dry_run: bool
    yes: bool
    as_json: bool


def _deciding(command: Callable[P, R]) -> Callable[P, R]:
    for argument in (
        options.as_json,
        options.yes,
        options.dry_run,
        options.by,
        filters,
        click.option("--all", "every", is_flag=True, help="All dead letters, or all that match."),
        click.argument("event_id", metavar="[EVENT_ID]", type=click.UUID, required=False),
    ):
        command = argument(command)
    return command


@failed.command()
@_deciding
@click.option("--rate", type=click.IntRange(1, 100_000), metavar="N", help="Most per second.")
def retry(*, rate: int | None, **choice: Unpack[Choice]) -> None:
    """Retry dead letters, from their first attempt on: that of EVENT_ID, or --all.

    Prints what matches, then asks. What fails while the command runs is not retried again.
    """
    _decide(choice, Decision(participle="retried", by=choice["by"], rate=rate))


@failed.command()
@_deciding
@options.reason
def discard(*, reason: str, **choice: Unpack[Choice]) -> None:
    """Discard dead letters for good: that of EVENT_ID, or --all.

    Prints what matches, then asks. Who did it and why is logged with each of them, and shown by
    `kratos-sync history`.
    """
    _decide(choice, Decision(participle="discarded", by=choice["by"], reason=reason))


def _decide(choice: Choice, decision: Decision) -> None:
    """Print what is chosen and, unless it is a dry run, ask and carry the decision out.

    Raises click.ClickException if it ended early: what was done until then stays done.
    """
    dry_run, as_json = choice["dry_run"], choice["as_json"]
    verb = "Retry" if decision.reason is None else "Discard"
    with command_container() as container:
        dead_letters, decisions = container.dead_letters(), container.dead_letter_decisions()
        at = dead_letters.now()
        wanted = _chosen(choice, at)
        groups = decision.groups = dead_letters.groups(wanted, MOST_GROUPS)
        if choice["event_id"] is not None:
            _require_one(choice["event_id"], choice["consumer"], groups)
        echo(*group_lines(groups, at, verbose=False), err=as_json)
        number = groups.dead_letters
        if number and not dry_run:
            options.confirm(f"{verb} {amount(number, 'dead letter')}?", choice["yes"])

            def steps(step: int) -> Iterator[int]:
                if decision.reason is None:
                    return decisions.retry(wanted, decision.by, step)
                return decisions.discard(wanted, decision.by, decision.reason, step)

            _carry_out(verb, decision, steps)
            if decision.done and decision.reason is None:
                container.wake_relay()()
        left = _left(decision, dead_letters, wanted, dry_run=dry_run)
    if as_json:
        echo_json(
            {
                **groups_json(groups, verbose=False),
                "dry_run": dry_run,
                "by": decision.by,
                "done": decision.done,
                "left": left,
                "interrupted": decision.ended_early is not None,
            }
        )
    elif dry_run and number:
        echo(f"A dry run: nothing was {decision.participle}.")
    elif number and not decision.ended_early:
        locked = f" {left:,} left as they were: somebody else has them locked." if left else ""
        done = amount(decision.done, "dead letter")
        echo(f"{decision.participle.capitalize()} {done}.{locked}")
    if decision.ended_early:
        raise click.ClickException(
            f"{decision.ended_early}: {decision.done:,} of {amount(number, 'dead letter')}"
            f" {decision.participle}; run the same command again for the others."
        )


def _chosen(choice: Choice, at: datetime) -> DeadLetterFilter:
    event_id = choice["event_id"]
    if (event_id is None) != choice["every"]:
        raise click.UsageError("give either an EVENT_ID, or --all, which filters narrow.")
    if event_id is not None and (choice["event"] or choice["exception"] or choice["since"]):
        raise click.UsageError("with an EVENT_ID there is nothing to filter but --consumer.")
    return filter_of(choice, at, event_id)


def _require_one(event_id: UUID, consumer: str | None, found: DeadLetterGroups) -> None:
    if not found.dead_letters:
        where = f" at {consumer}" if consumer else ""
        raise click.ClickException(f"There is no dead letter of the event {event_id}{where}.")
    if found.dead_letters > 1:
        names = ", ".join(sorted(group.consumer for group in found.groups))
        raise click.UsageError(f"the event failed at {names}: say which with --consumer.")


def _carry_out(verb: str, decision: Decision, steps: Callable[[int], Iterator[int]]) -> None:
    with (
        ShutdownSignals() as asked,
        progress(verb, decision.groups.dead_letters) as show,
        decision,
    ):
        pace = RateLimiter(decision.rate, pause=asked.pause) if decision.rate else None
        for done in steps(min(STEP, pace.step) if pace else STEP):
            decision.done += done
            show(decision.done)
            asked.pause(0)
            if pace:
                pace.spend(done)
    if decision.done:
        log.info(
            "dead_letters_decided_on",
            decision=decision.participle,
            by=decision.by,
            reason=decision.reason,
            consumers=sorted({group.consumer for group in decision.groups.groups}),
            deliveries=decision.done,
        )


def _left(
    decision: Decision, dead_letters: DeadLetters, wanted: DeadLetterFilter, *, dry_run: bool
) -> int:
    left = decision.groups.dead_letters - decision.done
    return dead_letters.count(wanted) if left and not dry_run and not decision.ended_early else left
