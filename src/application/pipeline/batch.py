"""What travels through the pipeline."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from application.consumer import Consumer
from application.ports.failures import Failures
from application.ports.unit_of_work import Owed, UnitOfWork


@dataclass(slots=True)
class Batch:
    """Deliveries of one consumer that share a transaction.

    ``owed`` is filled by the inbox: of the events named, those still to be consumed.
    """

    consumer: type[Consumer[Any]]
    event_ids: tuple[UUID, ...]
    unit_of_work: UnitOfWork
    failures: Failures
    owed: list[Owed] = field(default_factory=list)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = field(default_factory=monotonic)

    def only(self, event_id: UUID) -> "Batch":
        """Give a batch of this one event, starting now."""
        return replace(
            self,
            event_ids=(event_id,),
            owed=[],
            started_at=datetime.now(UTC),
            started=monotonic(),
        )

    @property
    def duration(self) -> timedelta:
        """How long it has taken so far."""
        return timedelta(seconds=monotonic() - self.started)


CallNext = Callable[[Batch], None]
Middleware = Callable[[Batch, CallNext], None]
