"""What travels through the pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final, NamedTuple
from uuid import UUID

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.footprint import Admission, OpenBatches
from kratos_sync.application.ports.dead_letters import FailedAttempt, Failures
from kratos_sync.application.ports.unit_of_work import UNWATCHED, PendingDelivery, UnitOfWork, Watch

FAILURES: Final = BaseException
"""What a consumer fails with: whatever ends a thread or a task is for nobody else here.

A panic in an extension written in Rust is no Exception either.
"""


class Failure(NamedTuple):
    """A delivery that failed: what its consumer raised, and what the ledger is told of it."""

    delivery: PendingDelivery
    error: BaseException
    attempt: FailedAttempt


@dataclass(slots=True)
class Batch:
    """Deliveries of one consumer that share a transaction.

    ``owed`` is filled by the inbox, if it ``is_open``: of the events named, those still to be
    consumed. ``failed`` are those among them that failed and could be told apart; the others go
    on without them. ``left`` are those that there was no time for, ``suspects`` those that cost a
    worker its time or its life before, and run alone. ``interrupted_at`` is where the consumer took
    too long.
    """

    consumer: type[Consumer[Any]]
    event_ids: Sequence[UUID]
    unit_of_work: UnitOfWork
    failures: Failures
    watch: Watch = UNWATCHED
    open_batches: OpenBatches = field(default_factory=OpenBatches)
    admission: Admission | None = None
    is_open: bool = False
    owed: list[PendingDelivery] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    left: list[PendingDelivery] = field(default_factory=list)
    suspects: list[UUID] = field(default_factory=list)
    interrupted_at: PendingDelivery | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=monotonic)

    def of(self, event_ids: Sequence[UUID]) -> "Batch":
        """Give a batch of some of the events, starting now."""
        return Batch(
            self.consumer,
            event_ids,
            self.unit_of_work,
            self.failures,
            self.watch,
            self.open_batches,
        )

    def begin(self) -> None:
        """Forget what an earlier run of it came to."""
        self.owed, self.left, self.suspects, self.interrupted_at = [], [], [], None
        self.is_open = False
        self.failed.clear()
        self.started_at, self.started = datetime.now(UTC), monotonic()

    @property
    def healthy(self) -> list[PendingDelivery]:
        """What is owed, less what failed."""
        if not self.failed:
            return self.owed
        failed = {failure.delivery.event_id for failure in self.failed}
        return [delivery for delivery in self.owed if delivery.event_id not in failed]

    @property
    def duration(self) -> timedelta:
        """How long it has taken so far."""
        return timedelta(seconds=monotonic() - self.started)


CallNext = Callable[[Batch], None]
Middleware = Callable[[Batch, CallNext], None]


def bound_memory(batch: Batch, call_next: CallNext) -> None:
    """Count a batch as open until its transaction has ended: storing takes as much as reading."""
    with batch.open_batches.admission() as batch.admission:
        call_next(batch)
