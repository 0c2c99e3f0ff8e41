"""Dead letters, what an operator may do about them, and failed attempts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from kratos_sync.application.ports.history import RecordedEvent
from kratos_sync.application.ports.position import Position


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters: those that match every field that is set.

    ``exception`` is a dotted type or its last part; with ``shape``, which is that of a group, empty
    for none, it is the whole type.
    ``since`` and ``until`` are inclusive bounds of the time of failure.
    """

    event_id: UUID | None = None
    consumer: str | None = None
    event: str | None = None
    exception: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    shape: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetterGroup:
    """Dead letters of one consumer that failed in the same way.

    ``shape`` is the message without what differs between events; None where it was not kept.
    ``example_error`` is the whole error of the example: it may quote personal data.
    """

    consumer: str
    exception: str
    shape: str | None
    dead_letters: int
    first_failed_at: datetime
    last_failed_at: datetime
    example_event_id: UUID
    example_error: str | None
    retries: int = 0
    """How often an operator retried them before."""

    @property
    def filter(self) -> DeadLetterFilter:
        """Those of the group, and none that fail from now on."""
        return DeadLetterFilter(
            consumer=self.consumer,
            exception=self.exception,
            until=self.last_failed_at,
            shape=self.shape or "",
        )


@dataclass(frozen=True, slots=True)
class DeadLetterGroups:
    """The largest groups, and how many dead letters and groups there are in all.

    ``at`` is the time by the database's clock.
    """

    dead_letters: int
    groups_in_all: int
    groups: tuple[DeadLetterGroup, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A delivery that used up its attempts; ``error`` may quote personal data.

    ``event`` is the event's name; None where the event was removed.
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
    retries: int = 0
    """How often an operator retried it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveredEvent(RecordedEvent):
    """An event with its ``payload``: JSON text with personal data, ``{}`` once it is erased.

    ``at`` is the time by the database's clock.
    """

    at: datetime
    identity_id: UUID
    payload: str


class DeadLetters(Protocol):
    """Reads dead letters.

    Every method raises LedgerUnavailable, or the reason why the schema cannot be read.
    """

    def now(self) -> datetime:
        """Return the time by the database's clock."""

    def groups(self, wanted: DeadLetterFilter, most: int, skip: int = 0) -> DeadLetterGroups:
        """Group those that match by consumer, exception and shape; return the largest groups.

        At most so many of those that follow the first ones, which are skipped.
        """

    def count(self, wanted: DeadLetterFilter) -> int:
        """Count those that match."""

    def consumers(self) -> Sequence[str]:
        """The consumers that have any, also those that this release does not know."""

    def newest(
        self, wanted: DeadLetterFilter, most: int, before: Position | None = None
    ) -> tuple[DeadLetter, ...]:
        """Return those that match, the newest failures first; at most so many.

        With a position only those that failed before that time, or at it with a smaller event id.
        """

    def event(self, event_id: UUID) -> DeliveredEvent | None:
        """Return an event and its deliveries; None if it is not in the ledger."""


class DeadLetterDecisions(Protocol):
    """An operator's decisions about dead letters, in steps.

    Each step is a transaction with at most so many dead letters; after its commit their number is
    yielded. Locked ones are left as they are. A step may raise LedgerUnavailable or
    ConcurrencyConflict; the steps before it stay committed.
    """

    def retry(self, wanted: DeadLetterFilter, by: str, step: int) -> Iterator[int]:
        """Make those that match due again, with all their attempts, and log who decided."""

    def discard(self, wanted: DeadLetterFilter, by: str, reason: str, step: int) -> Iterator[int]:
        """Remove those that match for good, and log who decided and why."""


RETRY_LATER: Final = "kratos_sync.application.consumer.RetryLater"
"""The error type of an attempt whose consumer asked to retry it later."""
WORKER_DIED: Final = "WorkerDied"
WAITS_FOR_EARLIER: Final = "WaitsForEarlier"
"""In place of an error's type: the delivery waits for an earlier event of its identity."""
UNKNOWN_EVENT: Final = "UnknownEvent"
"""Likewise: this release does not know the event."""
QUARANTINED_ERRORS: Final = ("TimeLimitExceeded", WORKER_DIED)
"""Error types after which a delivery is quarantined: it runs alone from then on."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that failed; ``retry_after`` is None after the last one: a dead letter.

    ``error`` includes the traceback; ``error_type`` and ``error_shape`` are common to errors of one
    kind. A postponed attempt does not count: its consumer asked for it.
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


class Lost(NamedTuple):
    """A delivery that was being consumed when its thread or its process ended."""

    consumer: str
    event_id: UUID
    attempt: int
    since: datetime


class Failures(Protocol):
    """Records failed attempts, in transactions of its own."""

    def record(self, attempt: FailedAttempt) -> None:
        """Log the attempt and make the delivery due again after its backoff, or a dead letter.

        Nothing happens if the delivery was settled meanwhile. Raises LedgerUnavailable.
        """
