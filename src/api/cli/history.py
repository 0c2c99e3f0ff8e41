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
from kratos_sync.api.timeline import DEAD_LETTER, PENDING, Step, steps, summary
from kratos_sync.application.ports.history import (
    DECISIONS,
    Attempt,
    Delivery,
    IdentityHistory,
    IdentitySummary,
    Outstanding,
    causes,
    error_type,
)

STYLES: Final = {
    "succeeded": "green",
    "failed": "yellow",
    DEAD_LETTER: "bold red",
    PENDING: "bold yellow",
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
    cause_of = causes(history.events)
    for event in history.events:
        yield ""
        yield Styled(f"{moment(event.recorded_at)}  {event.name}  ({event.source})", "bold")
        yield f"  event {event.id}, occurred {moment(event.occurred_at)}"
        if cause := cause_of.get(event.id):
            yield f"  because of {cause.name} {cause.id}"
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
    state, times = summary(identity)
    yield f"{state.upper() if identity.deleted_at else state}, version {identity.version}"
    yield from (f"{word} {_when(time, at)}" for word, time in times.items())


def _delivery(delivery: Delivery, at: datetime, verbose: bool) -> Iterator[Line]:
    yield f"  {delivery.consumer}"
    errors = [each.error for each in delivery.attempts]
    if (last := delivery.outstanding) is not None:
        errors.append(None if last.error in errors else last.error)
    for step, error in zip(steps(delivery, at), errors, strict=True):
        yield step_line(step, at)
        if verbose and error and step.by is None:
            yield from quoted(error, 8)


def step_line(step: Step, at: datetime) -> Line:
    """Describe a step in a line, without its error's message."""
    if step.detail:
        error = f"; last error {step.error}" if step.error else ""
        rest = f" {step.detail} {_when(step.at, at)}{error}"
        return "    ", Styled(step.outcome.upper(), STYLES[step.outcome]), rest
    took = "" if step.duration is None else f"{duration(step.duration):>7}"
    error = f"  {step.error}" if step.error else ""
    return (
        f"    {step.number or '':>2}  {moment(step.at)}  ",
        Styled(f"{step.outcome:<9}", STYLES.get(step.outcome, "")),
        f"  {step.by or took + error}",
    )


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
