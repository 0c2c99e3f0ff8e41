"""Which dead letters `kratos-sync failed retry` or `discard` is about."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import click

from api.commands.failed.filters import Since
from api.commands.times import resolved
from application.ports.dead_letters import DeadLetterFilter, DeadLetterGroups, DeadLetters

MOST_GROUPS = 20


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen, as a filter that lets in nothing that fails later, and what it matches."""

    wanted: DeadLetterFilter
    groups: DeadLetterGroups
    at: datetime


def choose(
    dead_letters: DeadLetters,
    *,
    event_id: UUID | None,
    every: bool,
    consumer: str | None,
    event: str | None,
    exception: str | None,
    since: Since,
) -> Chosen:
    """Give what is meant: the dead letter of one event, or all that fit.

    Raises click.UsageError when that is not said clearly, and click.ClickException when the event
    has no dead letter.
    """
    if (event_id is None) != every:
        raise click.UsageError("say either an EVENT_ID, or --all, which filters narrow.")
    if event_id is not None and (event or exception or since):
        raise click.UsageError("with an EVENT_ID there is nothing to filter but --consumer.")
    at = dead_letters.now()
    wanted = DeadLetterFilter(event_id, consumer, event, exception, resolved(since, at), at)
    found = dead_letters.groups(wanted, MOST_GROUPS)
    if event_id is not None:
        _require_one(event_id, consumer, found)
    return Chosen(wanted, found, at)


def _require_one(event_id: UUID, consumer: str | None, found: DeadLetterGroups) -> None:
    if not found.dead_letters:
        where = f" at {consumer}" if consumer else ""
        raise click.ClickException(f"There is no dead letter of the event {event_id}{where}.")
    if found.dead_letters > 1:
        names = ", ".join(sorted(group.consumer for group in found.groups))
        raise click.UsageError(f"the event failed at {names}: say which with --consumer.")
