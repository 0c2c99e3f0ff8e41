"""The story of an event's deliveries, step by step: for the commands and the console."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from kratos_sync.api.amounts import amount
from kratos_sync.api.views import error_in_short
from kratos_sync.application.ports.dead_letters import RETRY_LATER, UNKNOWN_EVENT
from kratos_sync.application.ports.history import (
    DECISIONS,
    Attempt,
    Delivery,
    IdentitySummary,
    Outstanding,
    RecordedEvent,
    error_type,
)

PENDING, DEAD_LETTER = "pending", "dead letter"
OUTCOMES: Final[Mapping[str, str]] = {"gave_up": "failed"}
"""The words for outcomes, where they are others than the ledger's: a dead letter follows."""


@dataclass(frozen=True, slots=True)
class Step:
    """An attempt, an operator's decision, or the delivery as it is now.

    ``error`` is an error's type, and the shape of its message where that was kept, never its text.
    ``detail`` says more of a delivery that exists, up to ``at``; ``by`` who decided, and why.
    """

    outcome: str
    at: datetime
    number: int | None = None
    duration: timedelta | None = None
    error: str | None = None
    detail: str = ""
    by: str | None = None

    @property
    def is_broken(self) -> bool:
        """Whether something failed."""
        return self.outcome == "failed" or self.is_dead

    @property
    def is_dead(self) -> bool:
        """Whether it is a dead letter."""
        return self.outcome == DEAD_LETTER


@dataclass(frozen=True, slots=True)
class Consumption:
    """What one consumer did with an event."""

    consumer: str
    steps: Sequence[Step]

    @property
    def is_broken(self) -> bool:
        """Whether it failed last."""
        return bool(self.steps) and self.steps[-1].is_broken

    @property
    def is_pending(self) -> bool:
        """Whether it is to be tried."""
        return bool(self.steps) and self.steps[-1].outcome == PENDING


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of the timeline; a fact is one that a consumer raised, because of its cause."""

    event: RecordedEvent
    consumptions: Sequence[Consumption]
    cause: RecordedEvent | None = None

    @property
    def is_fact(self) -> bool:
        """Whether a consumer raised it."""
        return self.event.name.startswith("identity.")

    @property
    def is_broken(self) -> bool:
        """Whether a delivery of it failed last."""
        return any(each.is_broken for each in self.consumptions)

    @property
    def is_pending(self) -> bool:
        """Whether a delivery of it is to be tried."""
        return any(each.is_pending for each in self.consumptions)


def entry_of(event: RecordedEvent, now: datetime, cause: RecordedEvent | None = None) -> Entry:
    """The event with what each consumer did."""
    consumptions = [Consumption(d.consumer, list(steps(d, now))) for d in event.deliveries]
    return Entry(event, consumptions, cause)


def steps(delivery: Delivery, now: datetime) -> Iterator[Step]:
    """A step for each attempt, and one for the delivery if it exists."""
    yield from map(_attempted, delivery.attempts)
    if delivery.outstanding is not None:
        yield _outstanding(delivery.outstanding, now)


def _attempted(attempt: Attempt) -> Step:
    outcome = OUTCOMES.get(attempt.outcome, attempt.outcome)
    if attempt.outcome in DECISIONS:
        by = (attempt.error or "").removeprefix(f"{outcome.capitalize()} ")
        return Step(outcome, attempt.started_at, by=by)
    error = error_type(attempt.error) if attempt.error else None
    return Step(outcome, attempt.started_at, attempt.number, attempt.duration, error)


def _outstanding(found: Outstanding, now: datetime) -> Step:
    text, due_at = found.error or "", found.due_at
    # The name of an unknown event is no personal data, and what one looks for.
    is_unknown = text.startswith(f"{UNKNOWN_EVENT}: ")
    error = (text if is_unknown else error_type(text)) if text else None
    described = error and error_in_short(error, None if is_unknown else found.shape)
    tried = f"after {amount(found.attempts, 'attempt')}" if found.attempts else ""
    if found.failed_at is not None:
        return Step(
            DEAD_LETTER, found.failed_at, error=described, detail=f"{tried}, since".lstrip(", ")
        )
    if error == RETRY_LATER:
        tried, described = "postponed, as its consumer asked", None
    if found.leased:
        due = f"leased, and its lease {'expired' if due_at <= now else 'expires'}"
    else:
        due = "due since" if due_at <= now else "due"
    return Step(PENDING, due_at, error=described, detail=f"{tried or 'and not tried yet'}: {due}")


def summary(identity: IdentitySummary) -> tuple[str, Mapping[str, datetime]]:
    """The state of our copy and its times, without personal data."""
    times = {
        "created": identity.created_at,
        "updated": identity.updated_at,
        "deleted": identity.deleted_at,
        "erased": identity.forgotten_at,
        "synced": identity.synced_at,
    }
    state = "deleted" if identity.deleted_at else identity.state or "state unknown"
    return state, {name: at for name, at in times.items() if at is not None}
