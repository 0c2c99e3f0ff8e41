"""`kratos-sync replay`: recorded events become pending again for one consumer."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click
import structlog

from kratos_sync.api.amounts import amount, duration, iso, moment
from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import echo, echo_json, progress
from kratos_sync.api.cli.process import Steps, command_container
from kratos_sync.application.application import Subscriptions
from kratos_sync.application.operation_scopes import ReplayScope
from kratos_sync.application.operations import recorded
from kratos_sync.application.ports.operations import How, Operation, OperationRequest
from kratos_sync.application.ports.replay import EventRange
from kratos_sync.application.replay import Replay
from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container

log = structlog.get_logger()


@dataclass(slots=True)
class Outcome(Steps):
    """What a replay did, and from which time on to resume one that ended early."""

    left: int = 0
    go_on_since: datetime | None = None


@click.command()
@options.consumer(required=True, help="The consumer that gets the events again.")
@options.time(
    "--since",
    required=True,
    help="Events recorded since then: 15min, 2h or 3d ago, or 2026-11-23T04:37 (UTC).",
)
@options.time("--until", help="And before then; by default, now.")
@click.option("--identity", type=click.UUID, metavar="ID", help="Only events of this identity.")
@click.option("--event", metavar="NAME", help="Only this event, by its wire name.")
@click.option(
    "--rate",
    type=click.IntRange(1, 100_000),
    default=500,
    show_default=True,
    metavar="N",
    help="At most so many events a second.",
)
@options.by
@options.why
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
    by: str,
    reason: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Deliver recorded events to one consumer again.

    All of them, also those that it has processed already, or that were discarded. It is given no
    more while its backlog is large, so that new events are not delayed. Events that are pending
    for it already, or dead letters, are left as they are.
    """
    with command_container() as container:
        subscriptions = container.subscriptions()
        names = _names(subscriptions, consumer, event)
        events = container.recorded_events()
        now = events.now()
        begin = options.resolved(since, now) or now
        # What is recorded from now on is delivered anyway.
        end = min(options.resolved(until, now) or now, now)
        if begin >= end:
            raise click.UsageError(f"--since {iso(begin)} is not before {iso(end)}.")
        wanted = EventRange(consumer, names, begin, end, identity)
        number = events.count(wanted)
        echo(_plan(wanted, number, rate), err=as_json)
        outcome = Outcome()
        if number and not dry_run:
            options.confirm(f"Replay {amount(number, 'event')}?", yes)
            scope = ReplayScope.of_range(wanted, rate).to_json()
            request = OperationRequest("replay", by, How.CLI, reason, identity, consumer, scope)
            outcome = replayed(container, request, wanted, rate, number)
    if as_json:
        echo_json(to_json(wanted, number, outcome, dry_run))
    elif dry_run and number:
        echo("A dry run: nothing was replayed.")
    elif number:
        left = f" {outcome.left:,} left as they were: pending, or dead letters."
        echo(f"Replayed {amount(outcome.done, 'event')}.{left if outcome.left else ''}")
    if outcome.go_on_since:
        raise click.ClickException(
            f"{outcome.ended_early}. The same command goes on"
            f" with --since {iso(outcome.go_on_since)} --until {iso(wanted.until)}"
        )


def replayed(
    container: "Container",
    request: OperationRequest,
    wanted: EventRange,
    rate: int,
    number: int,
) -> Outcome:
    """Replay a range of that many events, recorded as an operation.

    SIGINT and SIGTERM end it between two steps.
    """
    outcome, last = Outcome(), wanted.since
    batch_size = container.subscriptions().consumers[wanted.consumer].batch_size
    with (
        ShutdownSignals() as shutdown,
        progress(f"Replay to {wanted.consumer}", number) as show,
        outcome,
        recorded(container.operations(), request, number) as operation,
    ):
        pause = operation.pausing(shutdown.pause)
        replay = Replay(container.recorded_events(), container.wake_relay(), pause=pause)
        for step in replay.run(wanted, batch_size, rate):
            outcome.done, outcome.left = step.replayed, step.left
            last = step.position.recorded_at
            seen = step.replayed + step.left
            show(seen)
            operation.advance(seen, left=step.left, go_on_since=last.isoformat())
    if outcome.ended_early:
        outcome.go_on_since = last
    if outcome.done:
        log.info("replayed", consumer=wanted.consumer, deliveries=outcome.done)
    return outcome


def resume_replay(container: "Container", past: Operation, request: OperationRequest) -> Outcome:
    """Replay what an earlier operation left. Raises CannotBeResumed."""
    scope = ReplayScope.of(past)
    wanted = scope.to_range(past)
    options.known_consumer(container.subscriptions(), wanted.consumer)
    number = container.recorded_events().count(wanted)
    left = replace(request, scope=ReplayScope.of_range(wanted, scope.rate).to_json())
    return replayed(container, left, wanted, scope.rate, number)


def to_json(wanted: EventRange, number: int, outcome: Outcome, dry_run: bool) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes."""
    return {
        "consumer": wanted.consumer,
        "names": wanted.names,
        "identity_id": wanted.identity_id,
        "since": wanted.since,
        "until": wanted.until,
        "events": number,
        "dry_run": dry_run,
        "replayed": outcome.done,
        "left": outcome.left,
        "interrupted": outcome.ended_early is not None,
        "go_on_since": outcome.go_on_since,
    }


def _names(subscriptions: Subscriptions, consumer: str, event: str | None) -> tuple[str, ...]:
    names = subscriptions.events_of(options.known_consumer(subscriptions, consumer))
    if event is None:
        return names
    if event not in names:
        known = ", ".join(names)
        raise click.UsageError(f"{consumer} is not subscribed to {event}, but to {known}.")
    return (event,)


def _plan(wanted: EventRange, number: int, rate: int) -> str:
    about = f" about {wanted.identity_id}" if wanted.identity_id else ""
    named = f"{amount(number, 'event')} {' or '.join(wanted.names)}{about}"
    when = f"recorded from {moment(wanted.since)} to {moment(wanted.until)}"
    if not number:
        return f"{named} {when}: nothing to replay."
    pace = f"at most {rate:,} a second, so in {duration(timedelta(seconds=number / rate))} or more"
    return f"{named}, {when}, for {wanted.consumer}, also those it has processed already: {pace}."
