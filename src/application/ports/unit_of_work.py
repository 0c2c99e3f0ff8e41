"""One transaction around one batch: inbox, the consumer's writes, the events it raises."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.footprint import Admission
from kratos_sync.application.ports.dead_letters import FailedAttempt
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.events import DomainEvent


class ConcurrencyConflict(Exception):
    """Another transaction got there first (a new row, a deadlock): a retry may succeed."""


class RoomAgain(ConcurrencyConflict):
    """The server ran out of memory or disk and has room again: a retry may succeed.

    If the same statement exhausts it each time, the statement is at fault.
    """


class OtherLedgerUnavailable(Exception):
    """A consumer raised LedgerUnavailable: only the unit of work raises that for our own ledger."""


class PendingDelivery(NamedTuple):
    """A pending delivery with its event, as the ledger has them.

    ``payload`` is JSON text that is not decoded yet: one that cannot be decoded fails alone.
    """

    event_id: UUID
    attempt: int
    """The number of the attempt, from 1."""
    name: str
    subject: UUID
    occurred_at: datetime
    payload: str
    traceparent: str | None
    is_quarantined: bool = False
    """Whether its last attempt exceeded the time limit or ended its process: it runs alone."""
    source: str = ""
    """Where the event came from, as in `Provenance`."""
    recorded_at: datetime | None = None
    """When the event was recorded, by the ledger's clock."""
    hook: str | None = None
    """The label of Kratos' hook that called."""


class Inbox(Protocol):
    """The pending deliveries of a consumer. A delivery that is not there was settled before."""

    def open(
        self, consumer: str, event_ids: Sequence[UUID], admission: Admission | None = None
    ) -> list[PendingDelivery]:
        """Lock the pending deliveries of these events and load them, in the order of their ids.

        Skips deliveries that another worker has locked or whose backoff has not ended. An admission
        chooses which of the others are loaded.
        """

    def settle(
        self,
        consumer: str,
        deliveries: Sequence[PendingDelivery],
        started_at: datetime,
        duration: timedelta,
    ) -> None:
        """Remove the deliveries, and log a succeeded attempt for each."""

    def wake_next(self, consumer: str, subjects: Collection[UUID]) -> None:
        """Make due what waits for the deliveries about these identities that were settled."""

    def fail(self, attempts: Sequence[FailedAttempt]) -> None:
        """Log failed attempts; each delivery is due again after its backoff, or a dead letter.

        An error type of QUARANTINED_ERRORS puts the delivery into quarantine.
        """

    def release(self, consumer: str, event_ids: Sequence[UUID]) -> None:
        """Make deliveries due at once, counting no attempt."""

    def set_aside(self, consumer: str, footprints: Mapping[UUID, int], wait: timedelta) -> None:
        """Make deliveries that did not fit into memory due after the wait, counting no attempt.

        The ledger keeps their footprints.
        """

    def postpone(self, consumer: str, event_ids: Sequence[UUID], reason: str) -> None:
        """Make deliveries due later, counting no attempt; the ledger keeps the reason."""


class UnitOfWork(Protocol):
    """A transaction that leaves no trace unless ``commit`` returns."""

    def begin(self, time_limit: timedelta) -> AbstractContextManager[None]:
        """Open the transaction; leaving the context without a commit rolls it back.

        No statement in it may take longer than the time limit. Raises LedgerUnavailable.
        """

    @property
    def inbox(self) -> Inbox:
        """The inbox, in this transaction."""

    def consumer(self, kind: type[Consumer[Any]]) -> Consumer[Any]:
        """Make a consumer whose ports work in this transaction."""

    def savepoint(self, *, in_database: bool = False) -> None:
        """Mark the state that ``roll_back_to_savepoint`` returns to.

        In the database too: then statements can be undone, at the price of one more for each event.
        """

    def write_deferred(self) -> None:
        """Write what an event deferred and may fail at, so that it fails for this event."""

    def end_events(self) -> None:
        """Note that what follows belongs to no event.

        Raises an error if the consumer ended the transaction: all its writes may be lost.
        """

    def is_conflict(self, error: BaseException) -> bool:
        """Whether the error is a lost race of this transaction: a retry may succeed."""

    def roll_back_to_savepoint(self, error: BaseException) -> bool:
        """Undo what was done through the consumer's ports since the last savepoint.

        False, with nothing undone, if only a rollback of everything can do that after this error.
        """

    def collect_events(self) -> list[DomainEvent]:
        """Take the events that aggregates have raised since the last call."""

    def record(self, events: Sequence[tuple[DomainEvent, Provenance]]) -> None:
        """Record events and their deliveries in this transaction."""

    def abandon(self) -> None:
        """Cut the connection, from any thread: a thread that waits for it gets an error.

        Nothing that was not committed before is committed later.
        """

    def commit(self) -> None:
        """Write what changed and commit. Raises ConcurrencyConflict or LedgerUnavailable."""


class TimeLimitExceeded(BaseException):
    """A consumer took longer for an event than its time limit.

    Raised wherever the consumer is. Not an Exception, so that few handlers swallow it.
    """


class Watch(Protocol):
    """Watches the thread that consumes a batch."""

    def opened(self, pending: Sequence[PendingDelivery]) -> None:
        """A transaction has loaded these deliveries.

        One alone, and all of an async consumer, count as in flight from here on.
        """

    def begin(self, delivery: PendingDelivery) -> None:
        """The consumer starts with this delivery: TimeLimitExceeded may be raised from here on."""

    def end(self) -> None:
        """It has finished or failed. Raises TimeLimitExceeded if it took too long."""

    def ended(self, delivery: PendingDelivery) -> None:
        """An async consumer has finished this delivery, or failed; from any thread."""

    def hang(self, delivery: PendingDelivery, thread: int) -> None:
        """Wait until the process is replaced: nothing else frees the thread from this delivery."""

    def interrupt_thread(self, thread: int) -> None:
        """Raise TimeLimitExceeded in another thread, at its next step in Python."""


class Unwatched:
    """A watch that does nothing."""

    def opened(self, pending: Sequence[PendingDelivery]) -> None: ...
    def begin(self, delivery: PendingDelivery) -> None: ...
    def end(self) -> None: ...
    def ended(self, delivery: PendingDelivery) -> None: ...
    def hang(self, delivery: PendingDelivery, thread: int) -> None: ...
    def interrupt_thread(self, thread: int) -> None: ...


UNWATCHED: Final[Watch] = Unwatched()
