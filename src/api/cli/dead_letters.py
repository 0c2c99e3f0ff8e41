"""`kratos-sync failed list` and `show`: looking at dead letters."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypedDict, Unpack
from uuid import UUID

import click

from kratos_sync.api.amounts import ago, amount, moment
from kratos_sync.api.cli import options
from kratos_sync.api.cli.history import delivery_json, quoted, step_line
from kratos_sync.api.cli.output import Line, Styled, echo, echo_json, indented
from kratos_sync.api.cli.process import command_container
from kratos_sync.api.timeline import steps
from kratos_sync.api.views import failure
from kratos_sync.application.ports.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterGroups,
    DeliveredEvent,
)
from kratos_sync.application.ports.history import Delivery

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container


class Filters(TypedDict):
    """The values of the options that `filters` adds."""

    consumer: str | None
    event: str | None
    exception: str | None
    since: options.Time | None


filters = options.together(
    options.consumer(help="Only this consumer's."),
    click.option("--event", metavar="NAME", help="Only this event, by its wire name."),
    click.option("--exception", metavar="TYPE", help="Only this exception, or its last part."),
    options.time("--since", help="Only failures since then: 15min, 2h, 3d ago; 2026-11-23T04:37."),
)


@click.command("list")
@filters
@click.option("--each", is_flag=True, help="List every dead letter, the newest first.")
@options.limit(
    50, 10_000, help="How many groups, the largest first; with --each, how many dead letters."
)
@options.verbose
@options.as_json
def list_(
    *, each: bool, limit: int, verbose: bool, as_json: bool, **given: Unpack[Filters]
) -> None:
    """List dead letters, grouped by consumer, exception and message, the largest group first."""
    with command_container(migrated=False) as container:
        dead_letters = container.dead_letters()
        at = dead_letters.now()
        wanted = filter_of(container, given, at)
        if each:
            newest, total = dead_letters.newest(wanted, limit), dead_letters.count(wanted)
            document = each_json(newest, total, verbose)
            lines = each_lines(newest, total, at, verbose)
        else:
            groups = dead_letters.groups(wanted, limit)
            document = groups_json(groups, verbose)
            lines = group_lines(groups, at, verbose)
    if as_json:
        echo_json({"at": at, **document})
    else:
        echo(*lines)


def filter_of(
    container: "Container", given: Filters, at: datetime, event_id: UUID | None = None
) -> DeadLetterFilter:
    """Return the filter, which excludes what fails after `at`.

    Raises click.UsageError for a consumer that exists neither here nor in the ledger.
    """
    if (name := given["consumer"]) is not None:
        consumers = container.dead_letters().consumers()
        options.known_consumer(container.subscriptions(), name, consumers)
    since = options.resolved(given["since"], at)
    return DeadLetterFilter(
        event_id, given["consumer"], given["event"], given["exception"], since, at
    )


def group_lines(found: DeadLetterGroups, at: datetime, verbose: bool) -> Iterator[Line]:
    """Yield the number of dead letters, and some lines for each group."""
    if not found.dead_letters:
        yield "No dead letters."
        return
    total = f"{amount(found.dead_letters, 'dead letter')} in {amount(found.groups_in_all, 'group')}"
    shown = len(found.groups)
    more = f"; the largest {shown:,} of them" if shown < found.groups_in_all else ""
    yield Styled(f"{total}{more}:", "bold")
    for group in found.groups:
        first, last = moment(group.first_failed_at), moment(group.last_failed_at)
        when = last if first == last else f"from {first} to {last}"
        yield ""
        yield Styled(f"{group.dead_letters:>9,}  ", "bold red"), Styled(group.consumer, "bold")
        yield f"           {failure(group)}"
        yield f"           failed {when} ({ago(group.last_failed_at, at, 2)})"
        yield f"           for example event {group.example_event_id}"
        if group.retries:
            yield f"           retried {amount(group.retries, 'time')} before"
        if verbose and group.example_error:
            yield from quoted(group.example_error, 15)


def each_lines(
    newest: Sequence[DeadLetter], total: int, at: datetime, verbose: bool
) -> Iterator[Line]:
    """Yield some lines for each dead letter."""
    if not total:
        yield "No dead letters."
        return
    headline = amount(total, "dead letter")
    if len(newest) < total:
        headline = f"The newest {len(newest):,} of {headline}; --limit shows more"
    yield Styled(f"{headline}:", "bold")
    for letter in newest:
        attempts = f"after {amount(letter.attempts, 'attempt')} ({ago(letter.failed_at, at, 2)})"
        yield ""
        yield Styled(f"{moment(letter.failed_at)}  {letter.consumer}  {attempts}", "bold")
        yield f"  event {letter.event_id}, {letter.event or 'no longer in the ledger'}"
        yield f"  identity {letter.identity_id}"
        yield f"  {failure(letter)}"
        if verbose and letter.error:
            yield from quoted(letter.error, 6)


def groups_json(found: DeadLetterGroups, verbose: bool) -> dict[str, Any]:
    """Return the groups, for `--json`."""
    groups = [each if verbose else replace(each, example_error=None) for each in found.groups]
    shown = ("dead_letters", "groups_in_all")
    return {name: getattr(found, name) for name in shown} | {"groups": groups}


def each_json(newest: Sequence[DeadLetter], total: int, verbose: bool) -> dict[str, Any]:
    """Return each dead letter, for `--json`."""
    letters = [each if verbose else replace(each, error=None) for each in newest]
    return {"dead_letters": total, "newest": letters}


@click.command()
@click.argument("event_id", metavar="EVENT_ID", type=click.UUID)
@options.consumer(help="Only this consumer's.")
@click.option("--payload", is_flag=True, help="Show the payload too: that is personal data.")
@options.as_json
def show(event_id: UUID, consumer: str | None, payload: bool, as_json: bool) -> None:
    """Show the event EVENT_ID, every attempt of its deliveries, and the last traceback.

    Errors and tracebacks may quote personal data.
    """
    with command_container(migrated=False) as container:
        event = container.dead_letters().event(event_id)
    if event is None:
        raise click.ClickException(f"There is no event {event_id}.")
    deliveries = [each for each in event.deliveries if consumer in {None, each.consumer}]
    if consumer is not None and not deliveries:
        raise click.ClickException(f"{consumer} has no delivery of the event {event_id}.")
    if as_json:
        echo_json(event_json(event, deliveries, payload))
    else:
        echo(*_event(event, payload))
        for delivery in deliveries:
            echo(*_delivery(delivery, event.at))


def event_json(
    event: DeliveredEvent, deliveries: Sequence[Delivery], payload: bool
) -> dict[str, Any]:
    """Return the event and its deliveries, for `--json`."""
    names = ("id", "name", "identity_id", "source", "occurred_at", "recorded_at", "erased_at")
    shown = {"payload": json.loads(event.payload)} if payload else {}
    return {
        "event": {name: getattr(event, name) for name in names} | shown,
        "deliveries": [delivery_json(delivery, verbose=True) for delivery in deliveries],
    }


def _event(event: DeliveredEvent, payload: bool) -> Iterator[Line]:
    yield Styled(f"Event {event.id}  {event.name}", "bold")
    yield f"  about identity {event.identity_id}, from {event.source}"
    yield f"  occurred {moment(event.occurred_at)}, recorded {moment(event.recorded_at)}"
    if event.erased_at:
        yield f"  erased {moment(event.erased_at)}: nothing of its payload is left"
    elif payload:
        yield "  The payload:"
        yield from indented(json.dumps(json.loads(event.payload), indent=2, ensure_ascii=False), 4)
    if not event.deliveries:
        yield "  no consumer was subscribed to it"


def _delivery(delivery: Delivery, at: datetime) -> Iterator[Line]:
    yield ""
    yield Styled(delivery.consumer, "bold")
    error = None
    for step, attempt in zip_longest(steps(delivery, at), delivery.attempts):
        yield step_line(step, at)
        if attempt and attempt.error and step.by is None:
            # The last line of a traceback: its message is not in the attempt's line.
            yield Styled(f"        {attempt.error.rstrip().splitlines()[-1].strip()}", "dim")
            error = attempt.error
    if delivery.outstanding:
        error = delivery.outstanding.error
    if error:
        yield "  The last error:"
        yield from indented(error, 4)
