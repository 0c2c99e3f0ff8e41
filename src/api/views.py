"""What commands and the console say of operations, hooks and failures, in the same words."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from kratos_sync.api.amounts import duration, moment
from kratos_sync.application.missed_webhooks import silent_hooks
from kratos_sync.application.ports.dead_letters import DeadLetter, DeadLetterGroup
from kratos_sync.application.ports.hook_log import HookActivity
from kratos_sync.application.ports.operations import Operation, Outcome
from kratos_sync.application.ports.reconciliation import Findings
from kratos_sync.domain.json_values import Json

SHAPE_DIGITS_SHOWN: Final = 8
MOST_NAMED: Final = 5


REMEDIES: Final[Mapping[str, str]] = {
    "AnotherReconciliation": "Another reconciliation was running: there is one at a time.",
    "ConsumerIsBehind": "The consumer did not keep up for ten minutes: is a worker running?",
    "ConsumersAreBehind": "Consumers did not keep up for ten minutes: is a worker running?",
    "KratosNotConfigured": "KRATOS_ADMIN_URL was not set where this was carried out.",
    "KratosRefused": (
        "Kratos' Admin API refused: are KRATOS_ADMIN_URL and KRATOS_ADMIN_TOKEN right?"
    ),
    "KratosUnavailable": "Kratos' Admin API did not answer: do it again once Kratos is back.",
    "StillInFlight": "Some of it was in flight: a relay erases the rest within minutes.",
}
"""What to do about an error, by its type."""


class HookRow(NamedTuple):
    """A hook, when it last called, and whether it is silent."""

    activity: HookActivity
    is_silent: bool


def hook_rows(hooks: Sequence[HookActivity], now: datetime) -> list[HookRow]:
    """The hooks; where all are silent, each is."""
    silent = {each.label for each in silent_hooks(hooks, now)}
    return [HookRow(each, each.label in silent or None in silent) for each in hooks]


def failure(failed: DeadLetter | DeadLetterGroup) -> str:
    """What the deliveries failed with, as `error_in_short` has it."""
    return error_in_short(failed.exception, failed.shape)


def error_in_short(exception: str, shape: str | None) -> str:
    """The type of an error, and the shape of its message if that was kept."""
    return f"{exception}: {shape}" if shape else exception


def in_short(found: Findings) -> str:
    """How many identities were compared, and how many differed."""
    counts = {
        "missing": found.missing,
        "stale": found.stale,
        "deleted": found.deleted,
        "unreadable": found.unreadable,
    }
    differ = [f"{number:,} {what}" for what, number in counts.items() if number]
    return f"{found.identities:,} compared, {', '.join(differ) or 'all the same'}"


def pace(number: int, rate: int) -> str:
    """How fast so many events are replayed, and how long that takes."""
    took = duration(timedelta(seconds=number / rate))
    return f"at most {rate:,} a second, so in {took} or more"


def operation_state(operation: Operation) -> str:
    """How far an operation is, or how it ended."""
    if operation.outcome is Outcome.RUNNING and operation.cancel_requested_by is not None:
        return f"stopping for {operation.cancel_requested_by}"
    if operation.outcome is Outcome.CANCELLED:
        return f"cancelled by {operation.cancel_requested_by}"
    refused = operation.result.get("refused")
    if isinstance(refused, str):  # of a sync it is a number
        return f"refused: {refused}"
    error = operation.result.get("error")
    return f"{operation.outcome}: {error}" if error else str(operation.outcome)


def why_failed(operation: Operation) -> str | None:
    """What to do about an operation that failed with an error of those that are expected."""
    error = operation.result.get("error")
    return REMEDIES.get(error) if isinstance(error, str) else None


def operation_done(operation: Operation) -> str:
    """How much is done, of how much; empty where that is not counted."""
    if operation.total is not None:
        return f"{operation.done:,} of {operation.total:,}"
    return f"{operation.done:,}" if operation.done else ""


def operation_about(operation: Operation, *, names_identity: bool = True) -> str:
    """Whom or what an operation is about, in some words."""
    about = [] if operation.consumer is None else [operation.consumer]
    if operation.subject is not None and names_identity:
        about.append(f"identity {operation.subject}")
    for name, value in operation.scope.items():
        # Only the JSON has the pace, and the time at which the operation began.
        if value in (None, False) or name == "until" or (name, type(value)) == ("rate", int):
            continue
        shown = "" if value is True else f" {_value(name, value)}"
        about.append(f"{name.replace('_', ' ')}{shown}")
    return ", ".join(about)


def _value(name: str, value: Json) -> str:
    if name == "since" and isinstance(value, str):
        return moment(datetime.fromisoformat(value))
    if name == "shape":
        return str(value)[:SHAPE_DIGITS_SHOWN]
    if name.endswith("_older_than") and isinstance(value, int | float):
        return duration(timedelta(seconds=value))
    if isinstance(value, dict):
        return "of dead letters"
    if isinstance(value, list):
        return " or ".join(map(str, value)) if len(value) <= MOST_NAMED else f"({len(value):,})"
    return str(value)
