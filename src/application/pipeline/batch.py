"""What the pipeline passes on: a batch inwards, its result outwards."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.footprint import Admission, OpenBatches
from kratos_sync.application.json_body import loads
from kratos_sync.application.ports.dead_letters import FailedAttempt, Failures
from kratos_sync.application.ports.event_bus import ANSWER_SOURCES
from kratos_sync.application.ports.tracing import UNTRACED, BatchTrace
from kratos_sync.application.ports.unit_of_work import UNWATCHED, PendingDelivery, UnitOfWork, Watch
from kratos_sync.domain.events import (
    EVENTS,
    DomainEvent,
    KratosIdentityHinted,
    KratosIdentityUpdated,
)
from kratos_sync.domain.json_values import Json

FAILURES: Final = BaseException
"""What a consumer may fail with: also SystemExit, and a panic of an extension in Rust."""


class Start(NamedTuple):
    """When a batch began, by the wall clock and by the monotonic one."""

    at: datetime
    monotonic: float

    @classmethod
    def now(cls) -> "Start":
        return cls(datetime.now(UTC), monotonic())

    @property
    def elapsed(self) -> timedelta:
        return timedelta(seconds=monotonic() - self.monotonic)


class Failure(NamedTuple):
    """A failed delivery: what its consumer raised, and the attempt to record."""

    delivery: PendingDelivery
    error: BaseException
    attempt: FailedAttempt


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Batch:
    """Deliveries of one consumer that share a transaction.

    ``deliveries`` are those of the events that the inbox has opened, from ``started`` on.
    ``events`` are the names of the events that the consumer is subscribed to; None for all.
    No further event begins once the consumer ``is_paused``.
    """

    consumer: type[Consumer[Any]]
    event_ids: Sequence[UUID]
    unit_of_work: UnitOfWork
    failures: Failures
    watch: Watch = UNWATCHED
    open_batches: OpenBatches = field(default_factory=OpenBatches)
    admission: Admission | None = None
    events: Collection[str] | None = None
    is_paused: Callable[[], bool] = _never
    trace: BatchTrace = UNTRACED
    deliveries: Sequence[PendingDelivery] = ()
    started: Start = field(default_factory=Start.now)

    def part(self, event_ids: Sequence[UUID]) -> "Batch":
        """A batch of some of the events, starting now."""
        return replace(self, event_ids=event_ids, deliveries=(), started=Start.now())


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a batch.

    Each of ``failed`` was rolled back alone. ``unprocessed`` deliveries were opened and are as
    before: no time was left, or ``error`` rolled back everything. ``quarantined`` ones, and those
    that lost a race, have to run alone. ``later`` ones did not fit into memory with the others, and
    were not opened. ``interrupted`` is the delivery that exceeded the time limit, if that is the
    error. The consumer was called for ``seconds``.
    """

    started: Start
    is_open: bool = False
    succeeded: Sequence[PendingDelivery] = ()
    failed: Sequence[Failure] = ()
    unprocessed: Sequence[PendingDelivery] = ()
    quarantined: Sequence[UUID] = ()
    later: Sequence[UUID] = ()
    error: BaseException | None = None
    interrupted: PendingDelivery | None = None
    seconds: float = 0.0

    def rolled_back(
        self, error: BaseException, interrupted: PendingDelivery | None = None
    ) -> "Result":
        """The result once this error has rolled back the transaction."""
        failed = [failure.delivery for failure in self.failed]
        return Result(
            self.started,
            self.is_open,
            unprocessed=[*self.succeeded, *failed, *self.unprocessed],
            quarantined=self.quarantined,
            error=error,
            interrupted=interrupted,
            seconds=self.seconds,
        )


def read_event(delivery: PendingDelivery) -> DomainEvent:
    """The event of a delivery. Raises ValueError for a payload that it cannot have."""
    payload = cast("dict[str, Json]", loads(delivery.payload))
    event_id, occurred_at = delivery.event_id, delivery.occurred_at
    if delivery.name == KratosIdentityHinted.name:
        return KratosIdentityHinted.from_json(event_id, occurred_at, payload, delivery.hook)
    if delivery.name != KratosIdentityUpdated.name:
        return EVENTS[delivery.name].from_json(event_id, occurred_at, payload)
    if delivery.source in ANSWER_SOURCES:
        return KratosIdentityUpdated.answered(event_id, occurred_at, payload)
    return KratosIdentityUpdated.from_json(
        event_id, occurred_at, payload, delivery.recorded_at, delivery.hook
    )


CallNext = Callable[[Batch], Result]
Middleware = Callable[[CallNext, Batch], Result]


def bound_memory(call_next: CallNext, batch: Batch) -> Result:
    """Hold the batch's share of the memory until its transaction has ended."""
    with batch.open_batches.admission() as admission:
        return call_next(replace(batch, admission=admission))
