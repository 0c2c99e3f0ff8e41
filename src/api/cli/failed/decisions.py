"""`kratos-sync failed retry` and `discard`, and the JSON that ``--json`` prints.

Keys are only ever added; what matched stands in it as in `kratos-sync failed list`:

    {"dead_letters": 1204, "groups_in_all": 1, "groups": […], "dry_run": false, "by": "ada",
     "done": 1200, "left": 4, "interrupted": false}

``done`` counts those retried or discarded. ``left`` counts those that matched when the command
began and are dead letters still: somebody had them locked, or the command ended early.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ParamSpec, TypeVar
from uuid import UUID

import click
import structlog
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.api.cli.failed.listing import (
    Chosen,
    Since,
    choose,
    filters,
    groups_json,
    print_groups,
)
from kratos_sync.api.cli.options import amount, confirm, operator_name
from kratos_sync.api.cli.output import echo, echo_json, progress
from kratos_sync.api.cli.process import expected_errors, opened_container, why_unavailable
from kratos_sync.application.ports.dead_letters import DeadLetterFilter, DeadLetters
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.application.rate_limiter import RateLimiter
from kratos_sync.infrastructure.worker.shutdown import ShutdownRequested, ShutdownSignals

STEP = 4_000
"""Dead letters in one transaction: many enough to be quick, and few enough to hold up nobody."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decided: the ``verb`` and its ``participle``, and the ``steps`` that do it.

    ``steps`` takes what is meant, and how many a step may have; ``afterwards`` is called once.
    """

    verb: str
    participle: str
    steps: Callable[[DeadLetterFilter, int], Iterator[int]]
    by: str
    reason: str | None = None
    rate: int | None = None
    afterwards: Callable[[], None] | None = None


@dataclass(slots=True)
class _Outcome:
    done: int = 0
    ended_early: str | None = None


def carry_out(
    decision: Decision,
    chosen: Chosen,
    dead_letters: DeadLetters,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Say what is chosen and, unless it is a dry run, ask and do it.

    Raises click.ClickException when it ended early: what was done until then stays done.
    """
    number = chosen.groups.dead_letters
    print_groups(chosen.groups, chosen.at, verbose=False, stderr=as_json)
    outcome = _Outcome()
    if number and not dry_run:
        confirm(f"{decision.verb.capitalize()} {amount(number, 'dead letter')}?", yes)
        _run(decision, chosen, outcome)
    left = number - outcome.done
    if not dry_run and not outcome.ended_early:
        left = dead_letters.count(chosen.wanted) if left else 0
    if as_json:
        document = {
            **groups_json(chosen.groups, verbose=False),
            "dry_run": dry_run,
            "by": decision.by,
            "done": outcome.done,
            "left": left,
            "interrupted": outcome.ended_early is not None,
        }
        echo_json(document)
    elif dry_run and number:
        echo(f"A dry run: nothing was {decision.participle}.")
    elif number and not outcome.ended_early:
        echo(_summary(decision, outcome.done, left))
    if outcome.ended_early:
        raise click.ClickException(
            f"{outcome.ended_early}: {outcome.done:,} of {amount(number, 'dead letter')}"
            f" {decision.participle}; the same command goes on with the others."
        )


def _run(decision: Decision, chosen: Chosen, outcome: _Outcome) -> None:
    with (
        ShutdownSignals() as asked,
        progress(decision.verb.capitalize(), chosen.groups.dead_letters) as show,
    ):
        pace = RateLimiter(decision.rate, pause=asked.pause) if decision.rate else None
        step = min(STEP, pace.step) if pace else STEP
        try:
            for done in decision.steps(chosen.wanted, step):
                outcome.done += done
                show(outcome.done)
                asked.pause(0)
                if pace:
                    pace.spend(done)
        except ShutdownRequested:
            outcome.ended_early = "Interrupted"
        except ConcurrencyConflict:
            outcome.ended_early = "PostgreSQL was too busy"
        except (LedgerUnavailable, SQLAlchemyError) as error:
            outcome.ended_early = why_unavailable(error)
    if outcome.done:
        if decision.afterwards:
            decision.afterwards()
        log.info(
            "dead_letters_decided_on",
            decision=decision.participle,
            by=decision.by,
            reason=decision.reason,
            consumers=sorted({group.consumer for group in chosen.groups.groups}),
            deliveries=outcome.done,
        )


def _summary(decision: Decision, done: int, left: int) -> str:
    said = f"{decision.participle.capitalize()} {amount(done, 'dead letter')}."
    if left:
        said += f" {left:,} left as they were: somebody else has them locked."
    return said


P = ParamSpec("P")
R = TypeVar("R")


def _deciding(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command the arguments that retry and discard share."""
    for argument in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Only say what matches."),
        click.option(
            "--by",
            metavar="NAME",
            callback=lambda _ctx, _param, given: operator_name(given),
            help="Who decides this; you, if not given.",
        ),
        filters,
        click.option("--all", "every", is_flag=True, help="All dead letters, or all that match."),
        click.argument("event_id", metavar="[EVENT_ID]", type=click.UUID, required=False),
    ):
        command = argument(command)
    return command


@click.command()
@_deciding
@click.option(
    "--rate", type=click.IntRange(1, 100_000), metavar="N", help="At most so many a second."
)
def retry(
    *,
    event_id: UUID | None,
    every: bool,
    consumer: str | None,
    event: str | None,
    exception: str | None,
    since: Since,
    by: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    rate: int | None,
) -> None:
    """Try dead letters again, each from its first attempt on: that of EVENT_ID, or --all.

    First says what matches, then asks. What fails while it runs is not tried once more.
    """
    with opened_container() as container, expected_errors():
        dead_letters, decisions = container.dead_letters(), container.dead_letter_decisions()
        chosen = choose(
            dead_letters,
            event_id=event_id,
            every=every,
            consumer=consumer,
            event=event,
            exception=exception,
            since=since,
        )
        decision = Decision(
            "retry",
            "retried",
            lambda wanted, step: decisions.retry(wanted, by, step),
            by,
            rate=rate,
            afterwards=container.wake_relay(),
        )
        carry_out(decision, chosen, dead_letters, dry_run=dry_run, yes=yes, as_json=as_json)


@click.command()
@_deciding
@click.option(
    "--reason", required=True, callback=lambda _ctx, _param, given: _said(given), help="Why."
)
def discard(
    *,
    event_id: UUID | None,
    every: bool,
    consumer: str | None,
    event: str | None,
    exception: str | None,
    since: Since,
    by: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    reason: str,
) -> None:
    """Drop dead letters for good: that of EVENT_ID, or --all.

    First says what matches, then asks. Who did it and why is logged with each of them, and stands
    in `kratos-sync history`.
    """
    with opened_container() as container, expected_errors():
        dead_letters, decisions = container.dead_letters(), container.dead_letter_decisions()
        chosen = choose(
            dead_letters,
            event_id=event_id,
            every=every,
            consumer=consumer,
            event=event,
            exception=exception,
            since=since,
        )
        decision = Decision(
            "discard",
            "discarded",
            lambda wanted, step: decisions.discard(wanted, by, reason, step),
            by,
            reason,
        )
        carry_out(decision, chosen, dead_letters, dry_run=dry_run, yes=yes, as_json=as_json)


def _said(reason: str) -> str:
    if not reason.strip():
        raise click.BadParameter("say why: it is kept.")
    return reason.strip()
