"""`kratos-sync history`: every event of an identity, and what each consumer did with it."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import click

from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import (
    Line,
    Styled,
    Text,
    ago,
    amount,
    duration,
    echo,
    echo_json,
    harmless,
    indented,
    moment,
)
from kratos_sync.api.cli.process import command_container
from kratos_sync.application.ports.dead_letters import RETRY_LATER
from kratos_sync.application.ports.deletions import Erasure
from kratos_sync.application.ports.history import (
    DECISIONS,
    Attempt,
    Delivery,
    IdentityHistory,
    IdentitySummary,
    Outstanding,
    error_type,
)

UNKNOWN_EVENT: Final = "UnknownEvent"
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
@options.limit(200, 100_000, "How many events, the newest.")
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
    """Give the history, the oldest event first."""
    yield Styled(f"Identity {history.identity_id}", "bold")
    yield from (f"  {fact}" for fact in _summary(history.identity, history.at))
    if history.erasure:
        yield f"  {_erasure(history.erasure, history.at)}"
    yield ""
    shown = len(history.events)
    if shown < history.recorded:
        yield Styled(
            f"The newest {shown:,} of {amount(history.recorded, 'event')}, oldest first;"
            " --limit shows more.",
            "bold",
        )
    else:
        yield f"{amount(shown, 'event')}, oldest first."
    for event in history.events:
        yield ""
        yield Styled(f"{moment(event.recorded_at)}  {event.name}  ({event.source})", "bold")
        yield f"  event {event.id}, occurred {moment(event.occurred_at)}"
        if event.erased_at:
            yield f"  erased {_when(event.erased_at, history.at)}"
        elif not event.deliveries:
            yield "  no consumer was subscribed to it"
        for delivery in event.deliveries:
            yield from _delivery(delivery, history.at, verbose)


def _summary(identity: IdentitySummary | None, at: datetime) -> Iterator[str]:
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


def _erasure(erasure: Erasure, at: datetime) -> str:
    asked = f"by {erasure.by} {_when(erasure.asked_at, at)}: {erasure.reason}"
    return f"ERASED {asked}" if erasure.erased_at else f"BEING ERASED, asked {asked}"


def _delivery(delivery: Delivery, at: datetime, verbose: bool) -> Iterator[Line]:
    yield f"  {delivery.consumer}"
    for attempt in delivery.attempts:
        yield attempt_line(attempt)
        if verbose and attempt.error and attempt.outcome not in DECISIONS:
            yield from quoted(attempt.error, 8)
    if outstanding := delivery.outstanding:
        yield outstanding_line(outstanding, at)
        error = outstanding.last_error
        if verbose and error and all(attempt.error != error for attempt in delivery.attempts):
            yield from quoted(error, 8)


def attempt_line(attempt: Attempt) -> Line:
    """Describe an attempt in a line, without its error's message."""
    outcome = attempt.outcome.replace("_", " ")
    number = "" if attempt.outcome in DECISIONS else attempt.number
    line: list[Text] = [
        f"    {number:>2}  {moment(attempt.started_at)}  ",
        Styled(f"{outcome:<9}", STYLES.get(attempt.outcome, "")),
    ]
    if attempt.outcome in DECISIONS:
        why = harmless(attempt.error or "").removeprefix(f"{outcome.capitalize()} ")
        return [*line, f"  {why}"]
    line.append(f"  {duration(attempt.duration):>7}")
    return [*line, f"  {error_type(attempt.error)}"] if attempt.error else line


def outstanding_line(outstanding: Outstanding, at: datetime) -> Line:
    """Describe a pending delivery or a dead letter in a line, likewise."""
    tried = f"after {amount(outstanding.attempts, 'attempt')}" if outstanding.attempts else ""
    error = outstanding.last_error
    last = f"; last error {_brief(error)}" if error else ""
    if outstanding.failed_at:
        since = f" {tried}, since {_when(outstanding.failed_at, at)}"
        return "    ", Styled("DEAD LETTER", "bold red"), f"{since}{last}"
    if error_type(error or "") == RETRY_LATER:
        tried, last = "postponed, as its consumer asked", ""
    due = f" {tried or 'and not tried yet'}: {_due(outstanding, at)}"
    return "    ", Styled("PENDING", "bold yellow"), f"{due}{last}"


def _due(outstanding: Outstanding, at: datetime) -> str:
    overdue = outstanding.due_at <= at
    if outstanding.leased:
        end = "expired" if overdue else "expires"
        return f"leased, and its lease {end} {_when(outstanding.due_at, at)}"
    return f"due {'since ' if overdue else ''}{_when(outstanding.due_at, at)}"


def _when(time: datetime, at: datetime) -> str:
    return f"{moment(time)} ({f'in {duration(time - at)}' if time > at else ago(time, at, 2)})"


def _brief(error: str) -> str:
    # The name of an event that a release does not know is no secret, and what one looks for.
    return error if error.startswith(f"{UNKNOWN_EVENT}: ") else error_type(error)


def quoted(error: str, margin: int) -> Iterator[Line]:
    """Give an error in full."""
    return (Styled(line, "dim") for line in indented(error, margin))


def to_json(history: IdentityHistory, verbose: bool) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes."""
    return {
        "identity_id": history.identity_id,
        "at": history.at,
        "identity": history.identity,
        "erasure": history.erasure,
        "recorded": history.recorded,
        "events": [
            {
                "id": event.id,
                "name": event.name,
                "source": event.source,
                "occurred_at": event.occurred_at,
                "recorded_at": event.recorded_at,
                "erased_at": event.erased_at,
                "deliveries": [delivery_json(delivery, verbose) for delivery in event.deliveries],
            }
            for event in history.events
        ],
    }


def delivery_json(delivery: Delivery, verbose: bool) -> dict[str, Any]:
    """Return one of the ``deliveries`` of that document."""
    outstanding = delivery.outstanding
    return {
        "consumer": delivery.consumer,
        "attempts": [_attempt(attempt, verbose) for attempt in delivery.attempts],
        "outstanding": outstanding
        and {
            "attempts": outstanding.attempts,
            "due_at": outstanding.due_at,
            "leased": outstanding.leased,
            "failed_at": outstanding.failed_at,
            **_error(outstanding.last_error, verbose),
        },
    }


def _attempt(attempt: Attempt, verbose: bool) -> dict[str, Any]:
    is_decision = attempt.outcome in DECISIONS
    error = {"error_type": None, "error": attempt.error}
    return {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "started_at": attempt.started_at,
        "duration_seconds": attempt.duration,
        **(error if is_decision else _error(attempt.error, verbose)),
    }


def _error(error: str | None, verbose: bool) -> dict[str, str | None]:
    kind = None if error is None else error_type(error)
    return {"error_type": kind, "error": error if verbose else None}
