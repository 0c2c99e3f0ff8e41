"""Carrying out a decision about dead letters: said first, then asked, then done in steps."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click
import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.commands.failed.choice import Chosen
from api.commands.failed.listing import groups_json
from api.commands.failed.report import print_groups
from api.commands.lifeline import Interruptions, Stopped
from api.commands.operator import confirm
from api.commands.process import why_unavailable
from api.commands.progress import progress
from api.commands.quoting import echo, echo_json
from api.commands.units import amount
from application.pace import Pace
from application.ports.dead_letters import DeadLetterFilter, DeadLetters
from application.ports.event_bus import LedgerUnavailable
from application.ports.unit_of_work import ConcurrencyConflict

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
        Interruptions() as asked,
        progress(decision.verb.capitalize(), chosen.groups.dead_letters) as show,
    ):
        pace = Pace(decision.rate, pause=asked.pause) if decision.rate else None
        step = min(STEP, pace.step) if pace else STEP
        try:
            for done in decision.steps(chosen.wanted, step):
                outcome.done += done
                show(outcome.done)
                asked.pause(0)
                if pace:
                    pace.spend(done)
        except Stopped:
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
