"""`kratos-sync history`, and the JSON that ``--json`` prints.

Durations are seconds, times ISO 8601 in UTC; keys are only ever added:

    {"identity_id": "…", "at": "…",
     "identity": {"state": "active", "version": 3, "created_at": "…", "updated_at": "…",
                  "deleted_at": null, "synced_at": "…", "forgotten_at": null},
     "erasure": null,
     "recorded": 1,
     "events": [{"id": "…", "name": "kratos_identity.updated", "source": "webhook",
                 "occurred_at": "…", "recorded_at": "…", "erased_at": null,
                 "deliveries": [{"consumer": "SyncKratosIdentity",
                                 "attempts": [{"number": 1, "outcome": "failed",
                                               "started_at": "…", "duration_seconds": 0.012,
                                               "error_type": "KeyError", "error": null}],
                                 "outstanding": {"attempts": 1, "due_at": "…", "leased": false,
                                                 "failed_at": null, "error_type": "KeyError",
                                                 "error": null}}]}]}

``identity`` is null while there is no copy; ``recorded`` counts all events of the identity, also
those that ``--limit`` leaves out. For a person who was erased ``erasure`` is
``{"asked_at": "…", "erased_at": "…", "by": "ada", "reason": "…"}``.
``outstanding`` is null once the delivery is done; with ``failed_at`` it is a dead letter.
``error`` is always null without ``--verbose``: it may quote personal data. With the outcomes
``retried`` and ``discarded`` it says who decided that, and why.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import click
from rich.text import Text

from kratos_sync.api.cli.options import amount, duration, iso, moment, seconds
from kratos_sync.api.cli.output import echo_json, harmless, indented, uncut_console
from kratos_sync.api.cli.process import expected_errors, opened_container
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


@click.command()
@click.argument("identity_id", metavar="ID", type=click.UUID)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=200,
    show_default=True,
    help="The newest so many events.",
)
@click.option("--verbose", is_flag=True, help="Whole errors: they may quote personal data.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def history(identity_id: UUID, limit: int, verbose: bool, as_json: bool) -> None:
    """Tell what happened to the identity ID: every event, and what each consumer did with it."""
    with opened_container(migrated=False) as container, expected_errors():
        found = container.history().of(identity_id, limit)
    if found is None:
        raise click.ClickException(f"Nothing is known of an identity {identity_id}.")
    if as_json:
        echo_json(to_json(found, verbose))
    else:
        print_history(found, verbose)


def to_json(history: IdentityHistory, verbose: bool) -> dict[str, Any]:
    """Give the object that the module's docstring shows."""
    identity = history.identity
    return {
        "identity_id": str(history.identity_id),
        "at": iso(history.at),
        "identity": identity
        and {
            "state": identity.state,
            "version": identity.version,
            "created_at": iso(identity.created_at),
            "updated_at": iso(identity.updated_at),
            "deleted_at": iso(identity.deleted_at),
            "synced_at": iso(identity.synced_at),
            "forgotten_at": iso(identity.forgotten_at),
        },
        "erasure": history.erasure and erasure_json(history.erasure),
        "recorded": history.recorded,
        "events": [
            {
                "id": str(event.id),
                "name": event.name,
                "source": event.source,
                "occurred_at": iso(event.occurred_at),
                "recorded_at": iso(event.recorded_at),
                "erased_at": iso(event.erased_at),
                "deliveries": [delivery_json(delivery, verbose) for delivery in event.deliveries],
            }
            for event in history.events
        ],
    }


def erasure_json(erasure: Erasure) -> Mapping[str, Any]:
    """Give ``erasure`` as the module's docstring shows it."""
    return {
        "asked_at": iso(erasure.asked_at),
        "erased_at": iso(erasure.erased_at),
        "by": erasure.by,
        "reason": erasure.reason,
    }


def delivery_json(delivery: Delivery, verbose: bool) -> Mapping[str, Any]:
    """Give one of ``deliveries`` as the module's docstring shows it."""
    return {
        "consumer": delivery.consumer,
        "attempts": [_attempt(attempt, verbose) for attempt in delivery.attempts],
        "outstanding": delivery.outstanding and _outstanding(delivery.outstanding, verbose),
    }


def _attempt(attempt: Attempt, verbose: bool) -> Mapping[str, Any]:
    return {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "started_at": iso(attempt.started_at),
        "duration_seconds": seconds(attempt.duration),
        **_attempt_error(attempt, verbose),
    }


def _outstanding(outstanding: Outstanding, verbose: bool) -> Mapping[str, Any]:
    return {
        "attempts": outstanding.attempts,
        "due_at": iso(outstanding.due_at),
        "leased": outstanding.leased,
        "failed_at": iso(outstanding.failed_at),
        **_error(outstanding.last_error, verbose),
    }


def _attempt_error(attempt: Attempt, verbose: bool) -> Mapping[str, Any]:
    if attempt.outcome in DECISIONS:
        return {"error_type": None, "error": attempt.error}
    return _error(attempt.error, verbose)


def _error(error: str | None, verbose: bool) -> Mapping[str, Any]:
    return {
        "error_type": None if error is None else error_type(error),
        "error": error if verbose else None,
    }
