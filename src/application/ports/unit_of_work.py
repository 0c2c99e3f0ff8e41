"""One transaction around one batch: inbox, the consumer's own writes, the events they raise."""

from collections.abc import Mapping, Sequence
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
    """Another transaction got there first (one new row, a deadlock): once more may succeed."""


class RoomAgain(ConcurrencyConflict):
    """The server ran out of memory or disk, and has room again: once more may succeed.

    Who used it up shows only if it happens again.
    """


class PendingDelivery(NamedTuple):
    """A delivery still owed to a consumer, with its event as it stands in the ledger.

    ``attempt`` counts from 1; ``payload`` is JSON text, not yet decoded, so that one that cannot be
    decoded fails alone.
    """

    event_id: UUID
    attempt: int
    name: str
    subject: UUID
    occurred_at: datetime
    payload: str
    traceparent: str | None
    is_suspect: bool = False
    """Whether an attempt of it cost a worker its time limit or its life."""
    source: str = ""
    """The way the event came, as in `Provenance`."""
    recorded_at: datetime | None = None
    """When the event was recorded, by the ledger's clock."""


class Inbox(Protocol):
    """The deliveries owed to a consumer; one that is no longer there was settled before."""

    def open(
        self, consumer: str, event_ids: Sequence[UUID], admission: Admission | None = None
    ) -> list[PendingDelivery]:
        """Lock the deliveries still owed among these and load their events, in the order of ids.

        With an admission only what it chooses is loaded and given.

        Deliveries that another worker holds are left to it, and those whose backoff has not ended
        to a later message.
        """

    def settle(
        self,
        consumer: str,
        owed: Sequence[PendingDelivery],
        started_at: datetime,
        duration: timedelta,
    ) -> None:
        """Remove the deliveries and log an attempt that succeeded for each."""

    def fail(self, attempts: Sequence[FailedAttempt]) -> None:
        """Log attempts that failed; each delivery is due again after its backoff, or never.

        A delivery is a suspect from now on if the error's type is one of SUSPECT_ERRORS.
        """

    def release(self, consumer: str, event_ids: Sequence[UUID]) -> None:
        """Give deliveries back at once, counting no attempt."""

    def set_aside(self, consumer: str, footprints: Mapping[UUID, int], wait: timedelta) -> None:
        """Give deliveries back that there was no room for, counting no attempt.

        They are due after the wait, with these footprints from now on.
        """

    def postpone(self, consumer: str, event_ids: Sequence[UUID], reason: str) -> None:
        """Give deliveries back for later, counting no attempt; the reason is kept to be seen."""


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
        """Build a consumer whose ports work in this transaction."""

    def savepoint(self) -> None:
        """Remember how things stand, for ``roll_back_to_savepoint``."""

    def roll_back_to_savepoint(self) -> bool:
        """Undo what was done through the consumer's ports since the last savepoint.

        False, with nothing undone, where only a rollback can do that.
        """

    def collect_events(self) -> list[DomainEvent]:
        """Take the events that aggregates have raised since the last call."""

    def record(self, events: Sequence[tuple[DomainEvent, Provenance]]) -> None:
        """Record events and what is owed to their consumers, in this transaction."""

    def abandon(self) -> None:
        """Cut the connection, from any thread: whoever waits for it waits no longer.

        Nothing that was not committed by then ever will be.
        """

    def commit(self) -> None:
        """Write what changed and commit. Raises ConcurrencyConflict or LedgerUnavailable."""


class TimeLimitExceeded(BaseException):
    """A consumer took longer for an event than its time limit.

    Raised in the middle of whatever it was doing; it is no Exception, so that few swallow it.
    """


class Watch(Protocol):
    """Eyes on the thread that consumes a batch."""

    def opened(self, owed: Sequence[PendingDelivery]) -> None:
        """A transaction has loaded these deliveries: one alone is answerable for what it takes."""

    def begin(self, delivery: PendingDelivery) -> None:
        """The consumer gets this delivery now; from here on TimeLimitExceeded may be raised."""

    def end(self) -> None:
        """It is done with it, or has failed. Raises TimeLimitExceeded if it took too long."""


class Unwatched:
    """Nobody looks."""

    def opened(self, owed: Sequence[PendingDelivery]) -> None:
        """Look away."""

    def begin(self, delivery: PendingDelivery) -> None:
        """Look away."""

    def end(self) -> None:
        """Look away."""


UNWATCHED: Final[Watch] = Unwatched()
