"""`kratos-sync replay`, and the JSON that ``--json`` prints.

Times are ISO 8601 in UTC; keys are only ever added:

    {"consumer": "SendWelcomeEmail", "names": ["identity.registered"], "identity_id": null,
     "since": "…", "until": "…", "events": 1204, "dry_run": false,
     "replayed": 1200, "left": 4, "interrupted": false, "go_on_since": null}

``events`` is how many there are. ``left`` of them were owed already or are dead letters, and stay
that. ``go_on_since`` is where to begin after an interruption; events recorded in that very moment
may then come twice.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import click
import structlog
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.api.cli.failed.listing import Since
from kratos_sync.api.cli.options import (
    PointInTime,
    amount,
    confirm,
    duration,
    iso,
    moment,
    resolved,
)
from kratos_sync.api.cli.output import echo, echo_json, progress
from kratos_sync.api.cli.process import expected_errors, opened_container, why_unavailable
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.replay import EventRange, RecordedEvents
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.application.replay import ConsumerIsBehind, Replay, subscribed_event_names
from kratos_sync.application.subscriptions import CONSUMERS
from kratos_sync.infrastructure.worker.shutdown import ShutdownRequested, ShutdownSignals

log = structlog.get_logger()


@dataclass(slots=True)
class Outcome:
    """What came of a replay; ``ended_early`` says why, and ``go_on_since`` where to go on."""

    replayed: int = 0
    left: int = 0
    ended_early: str | None = None
    go_on_since: datetime | None = None


def replayed(
    events: RecordedEvents,
    wake_relay: Callable[[], None],
    stretch: EventRange,
    rate: int,
    number: int,
) -> Outcome:
    """Replay a stretch of so many events; SIGINT and SIGTERM end it between two steps."""
    outcome, last = Outcome(), stretch.since
    with ShutdownSignals() as asked, progress(f"Replay to {stretch.consumer}", number) as show:
        replay = Replay(events, wake_relay, pause=asked.pause)
        try:
            for step in replay.run(stretch, rate):
                outcome.replayed, outcome.left = step.replayed, step.left
                last = step.position.recorded_at
                show(step.replayed + step.left)
        except ShutdownRequested:
            outcome.ended_early = "Interrupted"
        except ConsumerIsBehind as error:
            outcome.ended_early = f"{error}: is a worker running?"
        except ConcurrencyConflict:
            outcome.ended_early = "PostgreSQL was too busy"
        except (LedgerUnavailable, SQLAlchemyError) as error:
            outcome.ended_early = why_unavailable(error)
    if outcome.ended_early:
        outcome.go_on_since = last
    if outcome.replayed:
        log.info("replayed", consumer=stretch.consumer, deliveries=outcome.replayed)
    return outcome


DEFAULT_RATE = 500


@click.command()
@click.option("--consumer", required=True, metavar="NAME", help="Who gets the events again.")
@click.option(
    "--since",
    required=True,
    type=PointInTime(),
    metavar="TIME",
    help="What was recorded since then: 15min, 2h or 3d ago, or 2026-11-23T04:37 (UTC).",
)
@click.option("--until", type=PointInTime(), metavar="TIME", help="And before then; else, now.")
@click.option("--identity", type=click.UUID, metavar="ID", help="Only what is about this identity.")
@click.option("--event", metavar="NAME", help="Only this event, by its name on the wire.")
@click.option(
    "--rate",
    type=click.IntRange(1, 100_000),
    default=DEFAULT_RATE,
    show_default=True,
    metavar="N",
    help="At most so many events a second.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many there are.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def replay(
    *,
    consumer: str,
    since: Since,
    until: Since,
    identity: UUID | None,
    event: str | None,
    rate: int,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Deliver recorded events to one consumer once more.

    All of them, also those that it has consumed already, or that were discarded. It gets no more
    while it has its hands full, so that what happens meanwhile is not held up. An event that it is
    owed anyway, or that is a dead letter, is left as it is.
    """
    names = _names(consumer, event)
    with opened_container() as container, expected_errors():
        events = container.recorded_events()
        stretch = replace(_stretch(events, consumer, names, since, until), identity_id=identity)
        number = events.count(stretch)
        echo(_plan(stretch, number, rate), err=as_json)
        outcome = Outcome()
        if number and not dry_run:
            confirm(f"Replay {amount(number, 'event')}?", yes)
            outcome = replayed(events, container.wake_relay(), stretch, rate, number)
    if as_json:
        echo_json(to_json(stretch, number, outcome, dry_run))
    elif dry_run and number:
        echo("A dry run: nothing was replayed.")
    elif number:
        echo(_summary(outcome))
    if outcome.ended_early:
        raise click.ClickException(
            f"{outcome.ended_early}. The same command goes on"
            f" with --since {iso(outcome.go_on_since)} --until {iso(stretch.until)}"
        )


def to_json(stretch: EventRange, number: int, outcome: Outcome, dry_run: bool) -> dict[str, object]:
    """Give the object that the module's docstring shows."""
    return {
        "consumer": stretch.consumer,
        "names": list(stretch.names),
        "identity_id": stretch.identity_id and str(stretch.identity_id),
        "since": iso(stretch.since),
        "until": iso(stretch.until),
        "events": number,
        "dry_run": dry_run,
        "replayed": outcome.replayed,
        "left": outcome.left,
        "interrupted": outcome.ended_early is not None,
        "go_on_since": iso(outcome.go_on_since),
    }


def _names(consumer: str, event: str | None) -> tuple[str, ...]:
    if consumer not in CONSUMERS:
        raise click.UsageError(
            f"there is no consumer {consumer}: there are {', '.join(CONSUMERS)}."
        )
    heard = subscribed_event_names(consumer)
    if event is not None and event not in heard:
        raise click.UsageError(f"{consumer} does not hear {event}: it hears {', '.join(heard)}.")
    return heard if event is None else (event,)


def _stretch(
    events: RecordedEvents,
    consumer: str,
    names: tuple[str, ...],
    since: Since,
    until: Since,
) -> EventRange:
    now = events.now()
    begin, end = resolved(since, now) or now, resolved(until, now) or now
    # What happens from now on is delivered anyway.
    end = min(end, now)
    if begin >= end:
        raise click.UsageError(f"--since {iso(begin)} is not before {iso(end)}.")
    return EventRange(consumer, names, begin, end)


def _plan(stretch: EventRange, number: int, rate: int) -> str:
    about = f" about {stretch.identity_id}" if stretch.identity_id else ""
    named = f"{amount(number, 'event')} {' or '.join(stretch.names)}{about}"
    when = f"recorded from {moment(stretch.since)} to {moment(stretch.until)}"
    if not number:
        return f"{named} {when}: nothing to replay."
    pace = f"at most {rate:,} a second, so in {duration(timedelta(seconds=number / rate))} or more"
    return (
        f"{named}, {when}, for {stretch.consumer}, whatever it has consumed already included:"
        f" {pace}."
    )


def _summary(outcome: Outcome) -> str:
    said = f"Replayed {amount(outcome.replayed, 'event')}."
    if outcome.left:
        said += f" {outcome.left:,} left as they were: owed already, or dead letters."
    return said
