"""`kratos-sync replay`: recorded events become pending again for one consumer."""

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click
import structlog

from kratos_sync.api.amounts import amount, iso, moment
from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import echo, echo_json
from kratos_sync.api.cli.process import Steps, carried_out, command_container
from kratos_sync.api.views import pace
from kratos_sync.application.actions import NotSubscribed
from kratos_sync.application.operation_scopes import ReplayScope
from kratos_sync.application.ports.event_search import OUTCOMES
from kratos_sync.application.ports.operations import How, Operation, OperationRequest
from kratos_sync.application.ports.replay import EventRange
from kratos_sync.application.replay import Progress

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
@click.option("--source", metavar="NAME", help="Only events of this source, such as webhook.")
@click.option("--hook", metavar="LABEL", help="Only events of the hook with this X-Kratos-Hook.")
@click.option("--trace", "trace_id", metavar="ID", help="Only events of this trace: 32 digits.")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="Only events with this outcome,")
@click.option("--of-consumer", metavar="NAME", help="at this consumer; by default, at any.")
@click.option(
    "--event-id",
    "event_ids",
    type=click.UUID,
    multiple=True,
    metavar="ID",
    help="Only this event; may be repeated.",
)
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
    source: str | None,
    hook: str | None,
    trace_id: str | None,
    outcome: str | None,
    of_consumer: str | None,
    event_ids: tuple[UUID, ...],
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
        options.known_consumer(container.subscriptions(), consumer)
        events = container.recorded_events()
        now = events.now()
        begin, end = options.resolved(since, now), options.resolved(until, now)
        try:
            wanted = container.actions().range_of(
                consumer,
                event,
                since=begin,
                until=end,
                identity_id=identity,
                source=source,
                hook=hook,
                trace_id=trace_id,
                outcome=outcome,
                of_consumer=of_consumer,
                event_ids=event_ids,
            )
        except NotSubscribed as error:
            raise click.UsageError(f"{error}.") from None
        if wanted.since >= wanted.until:
            raise click.UsageError(
                f"--since {iso(wanted.since)} is not before {iso(wanted.until)}."
            )
        number = events.count(wanted)
        echo(_plan(wanted, number, rate), err=as_json)
        result = Outcome()
        if number and not dry_run:
            options.confirm(f"Replay {amount(number, 'event')}?", yes)
            scope = ReplayScope.of_range(wanted, rate).to_json()
            request = OperationRequest("replay", by, How.CLI, reason, identity, consumer, scope)
            result = replayed(container, request, wanted, rate, number)
    if as_json:
        echo_json(to_json(wanted, number, result, dry_run))
    elif dry_run and number:
        echo("A dry run: nothing was replayed.")
    elif number:
        left = f" {result.left:,} left as they were: pending, or dead letters."
        echo(f"Replayed {amount(result.done, 'event')}.{left if result.left else ''}")
    if result.go_on_since:
        raise click.ClickException(
            f"{result.ended_early}. The same command goes on"
            f" with --since {iso(result.go_on_since)} --until {iso(wanted.until)}"
        )


def replayed(
    container: "Container",
    request: OperationRequest,
    wanted: EventRange,
    rate: int,
    number: int,
) -> Outcome:
    """Replay a range of that many events, recorded as an operation."""
    outcome = Outcome(go_on_since=wanted.since)

    def note(step: Progress) -> None:
        outcome.done, outcome.left = step.replayed, step.left
        outcome.go_on_since = step.position.recorded_at

    work = partial(container.actions().replay, wanted, rate, report=note)
    steps = carried_out(container, request, work, number, f"Replay to {wanted.consumer}")
    outcome.ended_early = steps.ended_early
    if not outcome.ended_early:
        outcome.go_on_since = None
    if outcome.done:
        log.info("replayed", consumer=wanted.consumer, deliveries=outcome.done)
    return outcome


def resume_replay(container: "Container", past: Operation, request: OperationRequest) -> Outcome:
    """Replay what an earlier operation left. Raises CannotBeResumed."""
    scope = ReplayScope.of(past)
    wanted = scope.to_range(past, scope.dead(container.dead_letters()))
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
        "source": wanted.source,
        "hook": wanted.hook,
        "trace_id": wanted.trace_id,
        "outcome": wanted.outcome,
        "of_consumer": wanted.of_consumer,
        "event_ids": wanted.event_ids,
        "events": number,
        "dry_run": dry_run,
        "replayed": outcome.done,
        "left": outcome.left,
        "interrupted": outcome.ended_early is not None,
        "go_on_since": outcome.go_on_since,
    }


def _plan(wanted: EventRange, number: int, rate: int) -> str:
    about = f" about {wanted.identity_id}" if wanted.identity_id else ""
    origins = {
        "source": wanted.source,
        "hook": wanted.hook,
        "trace": wanted.trace_id,
        "outcome": wanted.outcome,
    }
    only = "".join(f" of the {kind} {name}" for kind, name in origins.items() if name)
    at = f" at {wanted.of_consumer}" if wanted.of_consumer else ""
    named = f"{amount(number, 'event')} {' or '.join(wanted.names)}{about}{only}{at}"
    when = f"recorded from {moment(wanted.since)} to {moment(wanted.until)}"
    if not number:
        return f"{named} {when}: nothing to replay."
    took = pace(number, rate)
    return f"{named}, {when}, for {wanted.consumer}, also those it has processed already: {took}."
