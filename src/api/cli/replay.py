"""`kratos-sync replay`: recorded events become pending again for one consumer."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import click
import structlog

from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import amount, duration, echo, echo_json, iso, moment, progress
from kratos_sync.api.cli.process import command_container
from kratos_sync.api.cli.stopping import Steps
from kratos_sync.application.ports.replay import EventRange, RecordedEvents
from kratos_sync.application.replay import ConsumerIsBehind, Replay, subscribed_event_names
from kratos_sync.application.subscriptions import CONSUMERS
from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals

DEFAULT_RATE = 500
log = structlog.get_logger()


@dataclass(slots=True)
class Outcome(Steps):
    """What a replay did, and from which time on to resume one that ended early."""

    left: int = 0
    go_on_since: datetime | None = None


@click.command()
@options.consumer("The consumer that gets the events again.", required=True)
@options.time(
    "--since",
    "Events recorded since then: 15min, 2h or 3d ago, or 2026-11-23T04:37 (UTC).",
    required=True,
)
@options.time("--until", "And before then; by default, now.")
@click.option("--identity", type=click.UUID, metavar="ID", help="Only events of this identity.")
@click.option("--event", metavar="NAME", help="Only this event, by its wire name.")
@click.option(
    "--rate",
    type=click.IntRange(1, 100_000),
    default=DEFAULT_RATE,
    show_default=True,
    metavar="N",
    help="At most so many events a second.",
)
@options.dry_run
@options.yes
@options.as_json
def replay(
    *,
    consumer: str,
    since: options.Time,
    until: options.Time | None,
    identity: UUID | None,
    event: str | None,
    rate: int,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Deliver recorded events to one consumer again.

    All of them, also those that it has processed already, or that were discarded. It is given no
    more while its backlog is large, so that new events are not delayed. Events that are pending
    for it already, or dead letters, are left as they are.
    """
    names = _names(consumer, event)
    with command_container() as container:
        events = container.recorded_events()
        now = events.now()
        stretch = _stretch(
            consumer,
            names,
            options.resolved(since, now),
            options.resolved(until, now),
            now,
            identity,
        )
        number = events.count(stretch)
        echo(_plan(stretch, number, rate), err=as_json)
        outcome = Outcome()
        if number and not dry_run:
            options.confirm(f"Replay {amount(number, 'event')}?", yes)
            outcome = replayed(events, container.wake_relay(), stretch, rate, number)
    if as_json:
        echo_json(to_json(stretch, number, outcome, dry_run))
    elif dry_run and number:
        echo("A dry run: nothing was replayed.")
    elif number:
        left = f" {outcome.left:,} left as they were: pending, or dead letters."
        echo(f"Replayed {amount(outcome.done, 'event')}.{left if outcome.left else ''}")
    if outcome.go_on_since:
        raise click.ClickException(
            f"{outcome.ended_early}. The same command goes on"
            f" with --since {iso(outcome.go_on_since)} --until {iso(stretch.until)}"
        )


def replayed(
    events: RecordedEvents,
    wake_relay: Callable[[], None],
    stretch: EventRange,
    rate: int,
    number: int,
) -> Outcome:
    """Replay a stretch of that many events; SIGINT and SIGTERM end it between two steps."""
    outcome, last = Outcome(), stretch.since
    with (
        ShutdownSignals() as asked,
        progress(f"Replay to {stretch.consumer}", number) as show,
        outcome,
    ):
        try:
            for step in Replay(events, wake_relay, pause=asked.pause).run(stretch, rate):
                outcome.done, outcome.left = step.replayed, step.left
                last = step.position.recorded_at
                show(step.replayed + step.left)
        except ConsumerIsBehind as error:
            outcome.ended_early = f"{error}: is a worker running?"
    if outcome.ended_early:
        outcome.go_on_since = last
    if outcome.done:
        log.info("replayed", consumer=stretch.consumer, deliveries=outcome.done)
    return outcome


def to_json(stretch: EventRange, number: int, outcome: Outcome, dry_run: bool) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes."""
    return {
        "consumer": stretch.consumer,
        "names": stretch.names,
        "identity_id": stretch.identity_id,
        "since": stretch.since,
        "until": stretch.until,
        "events": number,
        "dry_run": dry_run,
        "replayed": outcome.done,
        "left": outcome.left,
        "interrupted": outcome.ended_early is not None,
        "go_on_since": outcome.go_on_since,
    }


def _names(consumer: str, event: str | None) -> tuple[str, ...]:
    if consumer not in CONSUMERS:
        known = ", ".join(CONSUMERS)
        raise click.UsageError(f"there is no consumer {consumer}: there are {known}.")
    names = subscribed_event_names(consumer)
    if event is not None and event not in names:
        raise click.UsageError(
            f"{consumer} is not subscribed to {event}, but to {', '.join(names)}."
        )
    return names if event is None else (event,)


def _stretch(  # noqa: PLR0917
    consumer: str,
    names: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    now: datetime,
    identity: UUID | None,
) -> EventRange:
    # What is recorded from now on is delivered anyway.
    begin, end = since or now, min(until or now, now)
    if begin >= end:
        raise click.UsageError(f"--since {iso(begin)} is not before {iso(end)}.")
    return EventRange(consumer, names, begin, end, identity)


def _plan(stretch: EventRange, number: int, rate: int) -> str:
    about = f" about {stretch.identity_id}" if stretch.identity_id else ""
    named = f"{amount(number, 'event')} {' or '.join(stretch.names)}{about}"
    when = f"recorded from {moment(stretch.since)} to {moment(stretch.until)}"
    if not number:
        return f"{named} {when}: nothing to replay."
    pace = f"at most {rate:,} a second, so in {duration(timedelta(seconds=number / rate))} or more"
    return f"{named}, {when}, for {stretch.consumer}, also those it has processed already: {pace}."
