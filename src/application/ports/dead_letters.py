"""Deliveries that have failed for good, and what an operator may do about them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from kratos_sync.application.ports.history import Delivery


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters are meant: those that fit all that is given; with nothing given, all.

    ``exception`` is a dotted type or its last part. ``since`` and ``until`` bound when they failed,
    and both belong to it.
    """

    event_id: UUID | None = None
    consumer: str | None = None
    event: str | None = None
    exception: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeadLetterGroup:
    """Dead letters of one consumer that failed in one way.

    ``shape`` is the message without what differs from one event to the next; None where it was not
    kept. ``example_error`` is the whole error of the ``example``: it may quote personal data.
    """

    consumer: str
    exception: str
    shape: str | None
    dead_letters: int
    first_failed_at: datetime
    last_failed_at: datetime
    example: UUID
    example_error: str | None


@dataclass(frozen=True, slots=True)
class DeadLetterGroups:
    """The largest groups, and how many dead letters and groups there are in all."""

    dead_letters: int
    groups_in_all: int
    groups: tuple[DeadLetterGroup, ...]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One delivery that failed for good; ``error`` may quote personal data.

    ``event`` and ``identity_id`` say what the event was; ``event`` is None where it is gone.
    """

    event_id: UUID
    consumer: str
    event: str | None
    identity_id: UUID
    attempts: int
    failed_at: datetime
    exception: str
    shape: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class DeliveredEvent:
    """An event and what each consumer did with it; ``payload`` is personal data, as JSON text.

    Where it was erased, ``erased_at`` says when, and the payload is an empty object.
    """

    id: UUID
    name: str
    identity_id: UUID
    source: str
    occurred_at: datetime
    recorded_at: datetime
    payload: str
    deliveries: tuple[Delivery, ...]
    erased_at: datetime | None = None


class DeadLetters(Protocol):
    """The ledger's dead letters, looked at.

    Every method raises LedgerUnavailable, or the reason why the schema cannot be read.
    """

    def now(self) -> datetime:
        """Give the time by the database's clock."""

    def groups(self, wanted: DeadLetterFilter, most: int) -> DeadLetterGroups:
        """Group those that fit by consumer, exception and shape; at most so many groups."""

    def count(self, wanted: DeadLetterFilter) -> int:
        """Count those that fit."""

    def newest(self, wanted: DeadLetterFilter, most: int) -> tuple[DeadLetter, ...]:
        """Give those that fit, the last that failed first; at most so many."""

    def event(self, event_id: UUID) -> DeliveredEvent | None:
        """Tell all that is known of an event; None if it is not in the ledger."""


class DeadLetterDecisions(Protocol):
    """What an operator decides about dead letters, in steps.

    Each step is a transaction of its own, with at most so many; each number says, after its commit,
    how many they were. What somebody else has locked is left as it is. Every step raises
    LedgerUnavailable or ConcurrencyConflict, and what was done before it stays done.
    """

    def retry(self, wanted: DeadLetterFilter, by: str, step: int) -> Iterator[int]:
        """Make those that fit due again, from their first attempt on, and log who wanted it."""

    def discard(self, wanted: DeadLetterFilter, by: str, reason: str, step: int) -> Iterator[int]:
        """Drop those that fit for good, and log who wanted it and why."""


RETRY_LATER: Final = "kratos_sync.application.consumer.RetryLater"
"""The type of error of an attempt whose consumer asked for another one later."""
WORKER_DIED: Final = "WorkerDied"
SUSPECT_ERRORS: Final = ("TimeLimitExceeded", WORKER_DIED)
"""Types of errors after which a delivery runs alone: it may harm the worker again."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that failed; ``retry_after`` is None when it was the last: a dead letter.

    ``error`` is told whole, with its traceback; ``error_type`` and ``error_shape`` are what errors
    of one kind have in common. One that ``is_postponed`` is not counted: its consumer asked for it.
    """

    event_id: UUID
    consumer: str
    number: int
    started_at: datetime
    duration: timedelta
    error: str
    retry_after: timedelta | None
    error_type: str | None = None
    error_shape: str | None = None
    is_postponed: bool = False

    @property
    def outcome(self) -> str:
        """``failed``, ``gave_up`` or ``postponed``, as the ledger logs it."""
        if self.is_postponed:
            return "postponed"
        return "gave_up" if self.retry_after is None else "failed"


class Failures(Protocol):
    """The ledger's account of what went wrong, kept in transactions of its own."""

    def record(self, attempt: FailedAttempt) -> None:
        """Log the attempt and make the delivery due again after its backoff, or a dead letter.

        Nothing happens if the delivery was settled meanwhile. Raises LedgerUnavailable.
        """
