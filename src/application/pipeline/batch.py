"""What travels through the pipeline: a batch inwards, its result outwards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final, NamedTuple
from uuid import UUID

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.footprint import Admission, OpenBatches
from kratos_sync.application.ports.dead_letters import FailedAttempt, Failures
from kratos_sync.application.ports.unit_of_work import UNWATCHED, PendingDelivery, UnitOfWork, Watch

FAILURES: Final = BaseException
"""What a consumer fails with: SystemExit, and a panic in an extension written in Rust, too."""


class Start(NamedTuple):
    """When a batch began, by the wall clock and by the monotonic one."""

    at: datetime
    monotonic: float

    @classmethod
    def now(cls) -> "Start":
        """This moment."""
        return cls(datetime.now(UTC), monotonic())

    @property
    def elapsed(self) -> timedelta:
        """The time since."""
        return timedelta(seconds=monotonic() - self.monotonic)


class Failure(NamedTuple):
    """A delivery that failed: what its consumer raised, and the attempt to be recorded."""

    delivery: PendingDelivery
    error: BaseException
    attempt: FailedAttempt


@dataclass(frozen=True, slots=True)
class Batch:
    """Deliveries of one consumer that share a transaction.

    ``deliveries`` are those that the inbox has opened: of the events named, the pending ones.
    ``started`` is when it began to open them.
    """

    consumer: type[Consumer[Any]]
    event_ids: Sequence[UUID]
    unit_of_work: UnitOfWork
    failures: Failures
    watch: Watch = UNWATCHED
    open_batches: OpenBatches = field(default_factory=OpenBatches)
    admission: Admission | None = None
    deliveries: Sequence[PendingDelivery] = ()
    started: Start = field(default_factory=Start.now)

    def part(self, event_ids: Sequence[UUID]) -> "Batch":
        """Give a batch of some of the events, starting now."""
        return replace(self, event_ids=event_ids, deliveries=(), started=Start.now())


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a batch.

    ``failed`` were rolled back by themselves, while the others went on. ``unprocessed`` are opened
    deliveries that nothing was done for: there was no time, or ``error`` rolled back all of them.
    ``quarantined`` once cost a worker its time limit or its life, and are to run alone.
    ``interrupted`` is the delivery at which the time limit was exceeded, if that is the error.
    """

    started: Start
    is_open: bool = False
    succeeded: Sequence[PendingDelivery] = ()
    failed: Sequence[Failure] = ()
    unprocessed: Sequence[PendingDelivery] = ()
    quarantined: Sequence[UUID] = ()
    error: BaseException | None = None
    interrupted: PendingDelivery | None = None

    def rolled_back(
        self, error: BaseException, interrupted: PendingDelivery | None = None
    ) -> "Result":
        """The result once this error has rolled back the transaction."""
        failed = [failure.delivery for failure in self.failed]
        undone = [*self.succeeded, *failed, *self.unprocessed]
        return Result(
            self.started,
            self.is_open,
            unprocessed=undone,
            quarantined=self.quarantined,
            error=error,
            interrupted=interrupted,
        )


CallNext = Callable[[Batch], Result]
Middleware = Callable[[CallNext, Batch], Result]


def bound_memory(call_next: CallNext, batch: Batch) -> Result:
    """Count a batch as open until its transaction has ended: storing takes as much as reading."""
    with batch.open_batches.admission() as admission:
        return call_next(replace(batch, admission=admission))
