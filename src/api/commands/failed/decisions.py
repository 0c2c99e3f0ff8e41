"""`kratos-sync failed retry` and `discard`, and the JSON that ``--json`` prints.

Keys are only ever added; what matched stands in it as in `kratos-sync failed list`:

    {"dead_letters": 1204, "groups_in_all": 1, "groups": […], "dry_run": false, "by": "ada",
     "done": 1200, "left": 4, "interrupted": false}

``done`` counts those retried or discarded. ``left`` counts those that matched when the command
began and are dead letters still: somebody had them locked, or the command ended early.
"""

from collections.abc import Callable
from typing import ParamSpec, TypeVar
from uuid import UUID

import click

from api.commands.failed.choice import choose
from api.commands.failed.filters import Since, filters
from api.commands.failed.run import Decision, carry_out
from api.commands.operator import operator_name
from api.commands.process import expected_errors, opened_container

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
