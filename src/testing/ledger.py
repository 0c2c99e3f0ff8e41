"""The ledger in memory: what is committed, and the deliveries that are due."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.ports.dead_letters import FailedAttempt
from kratos_sync.application.ports.deletions import AwaitedConsumer
from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.domain.events import DomainEvent, KratosIdentityUpdated
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.merging import ReceivedWebhook
from kratos_sync.testing.fakes import InMemoryKratosIdentities, InMemoryRegistrationCounts
from kratos_sync.testing.kratos import InMemoryDocuments, InMemoryKratos

if TYPE_CHECKING:
    from kratos_sync.testing.unit_of_work import InMemoryUnitOfWork

Key = tuple[str, UUID]
"""A delivery: the consumer's name, and the event's id."""


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event in the ledger; the payload is JSON text."""

    id: UUID
    name: str
    subject: UUID
    occurred_at: datetime
    payload: str
    source: str
    dedupe_key: str | None = None
    traceparent: str | None = None
    recorded_at: datetime | None = field(default=None, compare=False)
    hook: str | None = None


@dataclass(slots=True)
class Delivery:
    """A pending delivery, or a dead letter."""

    due_at: datetime
    attempts: int = 0
    last_error: str | None = None
    is_dead: bool = False
    error_type: str | None = field(default=None, compare=False)
    recorded_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt in the ledger."""

    event_id: UUID
    consumer: str
    number: int
    outcome: str
    error: str | None = None


class InMemoryLedger:
    """The ports EventBus and Failures, and the committed state that units of work share.

    ``adapters`` are what consumers get for their ports; what the fakes of ``in_transaction`` keep
    is rolled back with the transaction. A test sets the clock by ``now``, makes commits fail by
    ``commit_errors`` (each is raised once), and the ledger ``is_unavailable``. Without
    ``has_savepoints``, only a rollback of the whole batch undoes what a consumer did.
    """

    def __init__(
        self,
        subscriptions: Subscriptions | None = None,
        adapters: Mapping[Any, object] | None = None,
        in_transaction: Sequence[object] = (),
    ) -> None:
        self.subscriptions = subscriptions or Subscriptions(SUBSCRIPTIONS)
        self.adapters = dict(adapters or {})
        self.in_transaction = in_transaction
        self.now = datetime(2026, 11, 23, 13, tzinfo=UTC)
        self.events: dict[UUID, RecordedEvent] = {}
        self.deliveries: dict[Key, Delivery] = {}
        self.attempts: list[Attempt] = []
        self.identities = InMemoryKratosIdentities()
        self.counts = InMemoryRegistrationCounts()
        self.kratos = InMemoryKratos(InMemoryDocuments())
        self.asked_at: dict[UUID, datetime] = {}
        self.locked: set[Key] = set()
        self.commit_errors: deque[Exception] = deque()
        self.commits = 0
        self.is_unavailable = False
        self.has_savepoints = True

    def publish(self, event: DomainEvent, provenance: Provenance) -> bool:
        self.require_available()
        return self.add(event, provenance)

    def record(self, attempt: FailedAttempt) -> None:
        """Log the attempt, once; make the delivery due after its backoff, or a dead letter."""
        self.require_available()
        delivery = self.deliveries.get((attempt.consumer, attempt.event_id))
        if delivery is None or delivery.attempts != attempt.number - 1:
            return
        delivery.attempts += not attempt.is_postponed
        delivery.due_at = self.now + (attempt.retry_after or timedelta())
        delivery.last_error = attempt.error
        delivery.error_type = attempt.error_type
        delivery.is_dead = attempt.retry_after is None
        self.attempts.append(
            Attempt(
                attempt.event_id,
                attempt.consumer,
                attempt.number,
                attempt.outcome,
                attempt.error,
            )
        )

    def unit_of_work(self) -> "InMemoryUnitOfWork":
        from kratos_sync.testing.unit_of_work import InMemoryUnitOfWork

        return InMemoryUnitOfWork(self)

    @property
    def webhooks(self) -> "InMemoryRecordedWebhooks":
        return InMemoryRecordedWebhooks(self)

    def due(self, consumer: str) -> tuple[UUID, ...]:
        """The ids of the events that are due for a consumer: if it is ordered, one an identity."""
        kind = self.subscriptions.consumers.get(consumer)
        waiting: set[UUID] = set()
        if kind is not None and kind.ordered:
            waiting = self._behind_others(consumer, skips_dead_letters=kind.skips_dead_letters)
        return tuple(
            event_id
            for (name, event_id), delivery in sorted(self.deliveries.items())
            if name == consumer and not delivery.is_dead and delivery.due_at <= self.now
            if event_id not in waiting
        )

    def _behind_others(self, consumer: str, *, skips_dead_letters: bool) -> set[UUID]:
        """The events of a consumer that have an earlier one about their identity."""
        waiting, seen = set(), set()
        for (name, event_id), delivery in self.deliveries.items():
            if name == consumer and not (delivery.is_dead and skips_dead_letters):
                subject = self.events[event_id].subject
                if subject in seen:
                    waiting.add(event_id)
                seen.add(subject)
        return waiting

    def awaited(self, identity_id: UUID) -> list[AwaitedConsumer]:
        """The consumers with pending deliveries about an identity."""
        about = {
            key: delivery
            for key, delivery in self.deliveries.items()
            if self.events[key[1]].subject == identity_id
        }
        return [
            AwaitedConsumer(
                name,
                sum(consumer == name for consumer, _ in about),
                sum(each.is_dead for key, each in about.items() if key[0] == name),
            )
            for name in sorted({consumer for consumer, _ in about})
        ]

    def add(self, event: DomainEvent, provenance: Provenance) -> bool:
        """Record an event, unless it or one with its dedupe key was recorded before."""
        key = provenance.dedupe_key
        keys = {recorded.dedupe_key for recorded in self.events.values()} - {None}
        if event.id in self.events or key in keys:
            return False
        self.events[event.id] = RecordedEvent(
            event.id,
            event.name,
            event.subject,
            event.date_occurred,
            json.dumps(event.to_json()),
            provenance.source,
            key,
            provenance.traceparent,
            self.now,
            provenance.hook,
        )
        for consumer in self.subscriptions.consumers_of(event.name):
            self.deliveries[consumer, event.id] = Delivery(self.now, recorded_at=self.now)
        return True

    def require_available(self) -> None:
        """Raise LedgerUnavailable while a test has made the ledger unavailable."""
        if self.is_unavailable:
            raise LedgerUnavailable("the test made it unavailable")


class InMemoryRecordedWebhooks:
    """The RecordedWebhooks port."""

    def __init__(self, ledger: InMemoryLedger) -> None:
        self._ledger = ledger

    def now(self) -> datetime:
        return self._ledger.now

    def after(self, identity_id: UUID, moment: datetime) -> list[ReceivedWebhook]:
        return [
            ReceivedWebhook(Identity.from_kratos(json.loads(each.payload)["identity"]), at)
            for each in self._ledger.events.values()
            if each.name == KratosIdentityUpdated.name and each.source == "webhook"
            if each.subject == identity_id and (at := each.recorded_at or self.now()) > moment
        ]
