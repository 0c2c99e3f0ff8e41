"""`kratos-sync history`: every event of an identity, and what each consumer did with it."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import click

from kratos_sync.api.amounts import ago, amount, duration, moment
from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import Line, Styled, echo, echo_json, fields_of, indented
from kratos_sync.api.cli.process import command_container
from kratos_sync.application.ports.dead_letters import RETRY_LATER
from kratos_sync.application.ports.history import (
    DECISIONS,
    Attempt,
    Delivery,
    IdentityHistory,
    IdentitySummary,
    Outstanding,
    error_type,
)

STYLES: Final = {
    "succeeded": "green",
    "failed": "yellow",
    "gave_up": "bold red",
    "discarded": "bold red",
    "retried": "cyan",
    "erased": "cyan",
}


@click.command()
@options.identity_id
@options.limit(200, 100_000, help="How many events, the newest.")
@options.verbose
@options.as_json
def history(identity_id: UUID, limit: int, verbose: bool, as_json: bool) -> None:
    """Show every event of the identity ID, and what each consumer did with it."""
    with command_container(migrated=False) as container:
        found = container.history().of(identity_id, limit)
    if found is None:
        raise click.ClickException(f"Nothing is known of an identity {identity_id}.")
    if as_json:
        echo_json(to_json(found, verbose))
    else:
        echo(*history_lines(found, verbose))


def history_lines(history: IdentityHistory, verbose: bool) -> Iterator[Line]:
    """Yield the history, the oldest event first."""
    at, shown = history.at, len(history.events)
    yield Styled(f"Identity {history.identity_id}", "bold")
    yield from (f"  {fact}" for fact in summary_lines(history.identity, at))
    if erasure := history.erasure:
        state = "ERASED" if erasure.erased_at else "BEING ERASED, asked"
        yield f"  {state} by {erasure.by} {_when(erasure.asked_at, at)}: {erasure.reason}"
    yield ""
    if shown < history.recorded:
        number = amount(history.recorded, "event")
        yield Styled(f"The newest {shown:,} of {number}, oldest first; --limit shows more.", "bold")
    else:
        yield f"{amount(shown, 'event')}, oldest first."
    for event in history.events:
        yield ""
        yield Styled(f"{moment(event.recorded_at)}  {event.name}  ({event.source})", "bold")
        yield f"  event {event.id}, occurred {moment(event.occurred_at)}"
        if event.erased_at:
            yield f"  erased {_when(event.erased_at, at)}"
        elif not event.deliveries:
            yield "  no consumer was subscribed to it"
        for delivery in event.deliveries:
            yield from _delivery(delivery, at, verbose)


def summary_lines(identity: IdentitySummary | None, at: datetime) -> Iterator[str]:
    """Yield what is known of an identity without its traits and addresses."""
    if identity is None:
        yield "no copy of it (yet)"
        return
    times = {
        "created": identity.created_at,
        "updated": identity.updated_at,
        "deleted": identity.deleted_at,
        "erased": identity.forgotten_at,
        "synced": identity.synced_at,
    }
    state = "DELETED" if identity.deleted_at else identity.state or "state unknown"
    yield f"{state}, version {identity.version}"
    yield from (f"{word} {_when(time, at)}" for word, time in times.items() if time)


def _delivery(delivery: Delivery, at: datetime, verbose: bool) -> Iterator[Line]:
    yield f"  {delivery.consumer}"
    for attempt in delivery.attempts:
        yield attempt_line(attempt)
        if verbose and attempt.error and attempt.outcome not in DECISIONS:
            yield from quoted(attempt.error, 8)
    if outstanding := delivery.outstanding:
        yield outstanding_line(outstanding, at)
        error = outstanding.error
        if verbose and error and all(attempt.error != error for attempt in delivery.attempts):
            yield from quoted(error, 8)


def attempt_line(attempt: Attempt) -> Line:
    """Describe an attempt in a line, without its error's message."""
    is_decision, outcome = attempt.outcome in DECISIONS, attempt.outcome.replace("_", " ")
    number = "" if is_decision else attempt.number
    if is_decision:
        rest = (attempt.error or "").removeprefix(f"{outcome.capitalize()} ")
    else:
        error = f"  {error_type(attempt.error)}" if attempt.error else ""
        rest = f"{duration(attempt.duration):>7}{error}"
    return (
        f"    {number:>2}  {moment(attempt.started_at)}  ",
        Styled(f"{outcome:<9}", STYLES.get(attempt.outcome, "")),
        f"  {rest}",
    )


def outstanding_line(outstanding: Outstanding, at: datetime) -> Line:
    """Describe a pending delivery or a dead letter in a line, likewise."""
    error, due_at = outstanding.error or "", outstanding.due_at
    tried = f"after {amount(outstanding.attempts, 'attempt')}" if outstanding.attempts else ""
    # The name of an unknown event is no personal data, and what one looks for.
    brief = error if error.startswith("UnknownEvent: ") else error_type(error)
    last = f"; last error {brief}" if error else ""
    if outstanding.failed_at:
        since = f" {tried}, since {_when(outstanding.failed_at, at)}"
        return "    ", Styled("DEAD LETTER", "bold red"), f"{since}{last}"
    if brief == RETRY_LATER:
        tried, last = "postponed, as its consumer asked", ""
    if outstanding.leased:
        due = f"leased, and its lease {'expired' if due_at <= at else 'expires'}"
    else:
        due = "due since" if due_at <= at else "due"
    rest = f" {tried or 'and not tried yet'}: {due} {_when(due_at, at)}{last}"
    return "    ", Styled("PENDING", "bold yellow"), rest


def _when(time: datetime, at: datetime) -> str:
    return f"{moment(time)} ({f'in {duration(time - at)}' if time > at else ago(time, at, 2)})"


def quoted(error: str, margin: int) -> Iterator[Line]:
    """Yield the lines of an error."""
    return (Styled(line, "dim") for line in indented(error, margin))


def to_json(history: IdentityHistory, verbose: bool) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes."""
    events = [
        {
            **fields_of(event),
            "deliveries": [delivery_json(each, verbose) for each in event.deliveries],
        }
        for event in history.events
    ]
    return {**fields_of(history), "events": events}


def delivery_json(delivery: Delivery, verbose: bool) -> dict[str, Any]:
    """Return one of the ``deliveries`` of that document."""
    outstanding = delivery.outstanding
    return {
        "consumer": delivery.consumer,
        "attempts": [_with_error(attempt, verbose) for attempt in delivery.attempts],
        "outstanding": outstanding and _with_error(outstanding, verbose),
    }


def _with_error(tried: Attempt | Outstanding, verbose: bool) -> dict[str, Any]:
    facts = fields_of(tried, duration="duration_seconds")
    if isinstance(tried, Attempt) and tried.outcome in DECISIONS:
        return {**facts, "error_type": None}
    kind = None if tried.error is None else error_type(tried.error)
    return {**facts, "error_type": kind, "error": tried.error if verbose else None}
