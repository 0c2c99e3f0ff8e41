"""What `kratos-sync history` tells a person."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rich.text import Text

from api.commands.quoting import harmless, indented
from api.commands.terminal import uncut_console
from api.commands.units import amount, duration, moment
from application.ports.erasures import Erasure
from application.ports.failures import RETRY_LATER
from application.ports.history import (
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


def print_history(history: IdentityHistory, verbose: bool) -> None:
    """Print the history on standard output, oldest event first."""
    console = uncut_console()
    for line in _lines(history, verbose):
        console.print(line)


def _lines(history: IdentityHistory, verbose: bool) -> Iterator[Text | str]:
    yield Text(f"Identity {history.identity_id}", style="bold")
    for fact in _summary(history.identity, history.at):
        yield f"  {fact}"
    if history.erasure:
        yield f"  {_erasure(history.erasure, history.at)}"
    yield ""
    shown = len(history.events)
    if shown < history.recorded:
        yield Text(
            f"The newest {shown:,} of {amount(history.recorded, 'event')}, oldest first;"
            " --limit shows more.",
            style="bold",
        )
    else:
        yield f"{amount(shown, 'event')}, oldest first."
    for event in history.events:
        yield ""
        yield Text(f"{moment(event.recorded_at)}  {event.name}  ({event.source})", style="bold")
        yield f"  event {event.id}, occurred {moment(event.occurred_at)}"
        if event.erased_at:
            yield f"  erased {_when(event.erased_at, history.at)}"
        elif not event.deliveries:
            yield "  nobody was subscribed to it"
        for delivery in event.deliveries:
            yield from _delivery(delivery, history.at, verbose)


def _summary(identity: IdentitySummary | None, at: datetime) -> Iterator[str]:
    if identity is None:
        yield "no copy of it (yet)"
        return
    facts = {
        "created": identity.created_at,
        "updated": identity.updated_at,
        "deleted": identity.deleted_at,
        "forgotten": identity.forgotten_at,
        "synced": identity.synced_at,
    }
    state = "DELETED" if identity.deleted_at else identity.state or "state unknown"
    yield f"{state}, version {identity.version}"
    yield from (f"{word} {_when(time, at)}" for word, time in facts.items() if time)


def _erasure(erasure: Erasure, at: datetime) -> str:
    asked = f"by {erasure.by} {_when(erasure.asked_at, at)}: {erasure.reason}"
    return f"ERASED {asked}" if erasure.erased_at else f"BEING ERASED, asked {asked}"


def _delivery(delivery: Delivery, at: datetime, verbose: bool) -> Iterator[Text | str]:
    yield f"  {delivery.consumer}"
    for attempt in delivery.attempts:
        yield attempt_line(attempt)
        if verbose and attempt.error and attempt.outcome not in DECISIONS:
            yield from _quoted(attempt.error)
    if outstanding := delivery.outstanding:
        yield outstanding_line(outstanding, at)
        if verbose and outstanding.last_error and not _is_told(outstanding, delivery.attempts):
            yield from _quoted(outstanding.last_error)


def attempt_line(attempt: Attempt) -> Text:
    """Tell of an attempt in a line, without what its error says."""
    outcome = attempt.outcome.replace("_", " ")
    number = "" if attempt.outcome in DECISIONS else attempt.number
    line = Text(f"    {number:>2}  {moment(attempt.started_at)}  ")
    line.append(f"{outcome:<9}", style=STYLES.get(attempt.outcome, ""))
    if attempt.outcome in DECISIONS:
        said = harmless(attempt.error or "").removeprefix(f"{outcome.capitalize()} ")
        line.append(f"  {said}")
        return line
    line.append(f"  {duration(attempt.duration):>7}")
    if attempt.error:
        line.append(f"  {error_type(attempt.error)}")
    return line


def outstanding_line(outstanding: Outstanding, at: datetime) -> Text:
    """Tell what is still owed in a line, likewise."""
    line = Text("    ")
    tried = f"after {amount(outstanding.attempts, 'attempt')}" if outstanding.attempts else ""
    if outstanding.failed_at:
        line.append("DEAD LETTER", style="bold red")
        line.append(f" {tried}, since {_when(outstanding.failed_at, at)}")
    else:
        line.append("OWED", style="bold yellow")
        postponed = error_type(outstanding.last_error or "") == RETRY_LATER
        if postponed:
            tried = "later, as its consumer asked"
        line.append(f" {tried or 'and not tried yet'}: {_due(outstanding, at)}")
        if postponed:
            return line
    if outstanding.last_error:
        line.append(f"; last error {_brief(outstanding.last_error)}")
    return line


def _due(outstanding: Outstanding, at: datetime) -> str:
    overdue = outstanding.due_at <= at
    if outstanding.leased:
        end = "ran out" if overdue else "runs out"
        return f"dispatched, and its lease {end} {_when(outstanding.due_at, at)}"
    return f"due {'since ' if overdue else ''}{_when(outstanding.due_at, at)}"


def _when(time: datetime, at: datetime) -> str:
    away = duration(abs(at - time))
    return f"{moment(time)} ({f'in {away}' if time > at else f'{away} ago'})"


def _brief(error: str) -> str:
    # The name of an event that a release does not know is nobody's secret, and what one looks for.
    return error if error.startswith(f"{UNKNOWN_EVENT}: ") else error_type(error)


def _is_told(outstanding: Outstanding, attempts: tuple[Attempt, ...]) -> bool:
    return any(attempt.error == outstanding.last_error for attempt in attempts)


def _quoted(error: str) -> Iterator[Text]:
    return (Text(line, style="dim") for line in indented(error, 8))
