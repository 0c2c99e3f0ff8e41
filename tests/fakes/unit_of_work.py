"""The ledger in memory: who is owed what, and units of work that settle it."""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints
from uuid import UUID

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.footprint import Admission, Size, footprint_of
from kratos_sync.application.ports.dead_letters import QUARANTINED_ERRORS, FailedAttempt
from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.application.ports.kratos import KratosAnswers
from kratos_sync.application.ports.registration_counts import RegistrationCounts
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict, PendingDelivery
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.domain.events import DomainEvent, KratosIdentityHinted, KratosIdentityUpdated
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.kratos_identities import KratosIdentities, RecordedWebhooks
from kratos_sync.domain.merging import ReceivedWebhook
from tests.fakes.kratos_admin import InMemoryKratos
from tests.fakes.kratos_answers import InMemoryKratosAnswers
from tests.fakes.kratos_identities import InMemoryKratosIdentities
from tests.fakes.registration_counts import InMemoryRegistrationCounts
from tests.kratos.people import Town

POSTPONED_FOR = timedelta(minutes=1)

Key = tuple[str, UUID]


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event as it stands in a ledger."""

    id: UUID
    name: str
    subject: UUID
    occurred_at: datetime
    payload: str
    source: str
    dedupe_key: str | None = None
    traceparent: str | None = None
    recorded_at: datetime | None = field(default=None, compare=False)


@dataclass(slots=True)
class OwedDelivery:
    """A delivery as it stands in a ledger."""

    due_at: datetime
    attempts: int = 0
    last_error: str | None = None
    is_dead: bool = False
    error_type: str | None = field(default=None, compare=False)
    owed_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt as a ledger logs it."""

    event_id: UUID
    consumer: str
    number: int
    outcome: str
    error: str | None = None


class InMemoryLedger:
    """The ports EventBus and Failures, and the committed state that units of work share.

    A test sets the clock by `now`, breaks commits by `commit_errors` (each is raised once), and
    takes the ledger away by `is_away`. Without `can_take_back`, what a consumer did can only be
    rolled back.
    """

    def __init__(self) -> None:
        self.subscriptions = Subscriptions(SUBSCRIPTIONS)
        self.now = datetime(2026, 11, 23, 13, tzinfo=UTC)
        self.events: dict[UUID, RecordedEvent] = {}
        self.deliveries: dict[Key, OwedDelivery] = {}
        self.attempts: list[Attempt] = []
        self.identities = InMemoryKratosIdentities()
        self.counts = InMemoryRegistrationCounts()
        self.kratos = InMemoryKratos(Town())
        self.asked_at: dict[UUID, datetime] = {}
        self.held: set[Key] = set()
        self.commit_errors: deque[Exception] = deque()
        self.commits = 0
        self.is_away = False
        self.can_take_back = True

    def publish(self, event: DomainEvent, provenance: Provenance) -> bool:
        """Record the event and what is owed to its consumers."""
        self.require_it_is_here()
        return self.take_in(event, provenance)

    def record(self, attempt: FailedAttempt) -> None:
        """Log the attempt, once; make the delivery due after its backoff, or a dead letter."""
        self.require_it_is_here()
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
        """A unit of work on this ledger."""
        return InMemoryUnitOfWork(self)

    @property
    def webhooks(self) -> "InMemoryRecordedWebhooks":
        """The webhooks on record."""
        return InMemoryRecordedWebhooks(self)

    def due(self, consumer: str) -> tuple[UUID, ...]:
        """The ids of the events that the consumer should get now."""
        return tuple(
            event_id
            for (name, event_id), delivery in sorted(self.deliveries.items())
            if name == consumer and not delivery.is_dead and delivery.due_at <= self.now
        )

    def take_in(self, event: DomainEvent, provenance: Provenance) -> bool:
        """Record an event, unless it or one with its dedupe key is there."""
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
        )
        for consumer in self.subscriptions.consumers_of(event.name):
            self.deliveries[consumer, event.id] = OwedDelivery(self.now, owed_at=self.now)
        return True

    def require_it_is_here(self) -> None:
        """Raise LedgerUnavailable while a test has taken the ledger away."""
        if self.is_away:
            raise LedgerUnavailable("the test has taken it away")


class InMemoryRecordedWebhooks:
    """A `RecordedWebhooks` of an in-memory ledger."""

    def __init__(self, ledger: InMemoryLedger) -> None:
        self._ledger = ledger

    def now(self) -> datetime:
        """The ledger's time."""
        return self._ledger.now

    def after(self, identity_id: UUID, moment: datetime) -> list[ReceivedWebhook]:
        """Look through all events."""
        return [
            ReceivedWebhook(Identity.from_kratos(json.loads(each.payload)["identity"]), at)
            for each in self._ledger.events.values()
            if each.name == KratosIdentityUpdated.name and each.source == "webhook"
            if each.subject == identity_id and (at := each.recorded_at or self.now()) > moment
        ]


@dataclass
class _Writes:
    """What a unit of work has done and not committed."""

    identities: InMemoryKratosIdentities
    answers: InMemoryKratosAnswers
    held: set[Key] = field(default_factory=set)
    settled: set[Key] = field(default_factory=set)
    postponed: dict[Key, str] = field(default_factory=dict)
    set_aside: dict[Key, timedelta] = field(default_factory=dict)
    recorded: list[tuple[DomainEvent, Provenance]] = field(default_factory=list)
    failed: list[FailedAttempt] = field(default_factory=list)
    counts: InMemoryRegistrationCounts = field(default_factory=InMemoryRegistrationCounts)


class InMemoryUnitOfWork:
    """The ports UnitOfWork and Inbox: nothing shows in the ledger before it commits."""

    def __init__(self, ledger: InMemoryLedger) -> None:
        self._ledger = ledger
        self._uncommitted: _Writes | None = None
        self.inbox = self
        self.can_take_back = ledger.can_take_back

    @contextmanager
    def begin(self, time_limit: timedelta) -> Iterator[None]:
        """Copy the identities, to be written back by a commit."""
        self._ledger.require_it_is_here()
        answers = InMemoryKratosAnswers(
            self._ledger.kratos,
            self._held_people,
            lambda: self._ledger.now,
            self._is_answered,
            self._first_hinted,
        )
        self._uncommitted = _Writes(deepcopy(self._ledger.identities), answers)
        self._begun_with = {each.id: each.version for each in self._ledger.identities}
        try:
            yield
        finally:
            self._ledger.held -= self._writes.held
            self._uncommitted = None

    @property
    def _writes(self) -> _Writes:
        assert self._uncommitted is not None, "no transaction has begun"
        return self._uncommitted

    def _held_people(self) -> set[UUID]:
        return {self._ledger.events[event_id].subject for _, event_id in self._writes.held}

    def _is_answered(self, hint: KratosIdentityHinted) -> bool:
        owed_at = next(
            self._ledger.deliveries[key].owed_at for key in self._writes.held if key[1] == hint.id
        )
        asked_at = self._ledger.asked_at.get(hint.identity_id)
        return owed_at is not None and asked_at is not None and owed_at < asked_at

    def _first_hinted(self, identity_id: UUID) -> datetime | None:
        if self._ledger.identities.find(identity_id) is not None:
            return None
        hints = (
            event.occurred_at
            for event in self._ledger.events.values()
            if event.subject == identity_id and event.name == KratosIdentityHinted.name
        )
        return min(hints, default=None)

    def open(
        self, consumer: str, event_ids: Sequence[UUID], admission: Admission | None = None
    ) -> list[PendingDelivery]:
        """Hold what is owed and not held by another unit of work."""
        self._ledger.require_it_is_here()
        owed = []
        for event_id in sorted(set(event_ids)):
            key = consumer, event_id
            delivery = self._ledger.deliveries.get(key)
            if delivery is None or delivery.is_dead or key in self._ledger.held:
                continue
            if delivery.due_at > self._ledger.now:
                continue
            event = self._ledger.events[event_id]
            self._writes.held.add(key)
            self._ledger.held.add(key)
            owed.append(
                PendingDelivery(
                    event_id,
                    delivery.attempts + 1,
                    event.name,
                    event.subject,
                    event.occurred_at,
                    event.payload,
                    event.traceparent,
                    delivery.attempts > 0 and delivery.error_type in QUARANTINED_ERRORS,
                    event.source,
                    event.recorded_at,
                )
            )
        if admission is None:
            return owed
        sizes = [
            Size(each.event_id, each.subject, footprint_of(each.payload.encode()), 0)
            for each in owed
        ]
        chosen = admission.choose(sizes)
        return [each for each in owed if each.event_id in chosen]

    def set_aside(self, consumer: str, footprints: Mapping[UUID, int], wait: timedelta) -> None:
        """Make them due when this commits."""
        self._writes.set_aside |= {(consumer, event_id): wait for event_id in footprints}

    def settle(
        self,
        consumer: str,
        owed: Sequence[PendingDelivery],
        started_at: datetime,
        duration: timedelta,
    ) -> None:
        """Settle when this commits."""
        self._writes.settled |= {(consumer, delivery.event_id) for delivery in owed}

    def fail(self, attempts: Sequence[FailedAttempt]) -> None:
        """Log the attempts when this commits."""
        self._writes.failed.extend(attempts)

    def savepoint(self) -> None:
        """Remember how things stand."""
        self._writes.identities.savepoint()
        self._counts_before = deepcopy(self._writes.counts)
        self._told_before = self._writes.answers.recorded.copy()

    def roll_back_to_savepoint(self) -> bool:
        """Go back to the savepoint, in the very objects that consumers hold."""
        self._writes.identities.roll_back_to_savepoint()
        self._writes.answers.recorded = self._told_before
        self._writes.counts.__dict__.update(self._counts_before.__dict__)
        return self.can_take_back

    def release(self, consumer: str, event_ids: Sequence[UUID]) -> None:
        """Due deliveries stay due here: nobody leases them."""

    def abandon(self) -> None:
        """There is no connection to cut."""

    def postpone(self, consumer: str, event_ids: Sequence[UUID], reason: str) -> None:
        """Postpone when this commits."""
        self._writes.postponed |= {(consumer, event_id): reason for event_id in event_ids}

    def consumer(self, kind: type[Consumer[Any]]) -> Consumer[Any]:
        """Build a consumer on the uncommitted state."""
        ports: dict[Any, Any] = {
            KratosAnswers: self._writes.answers,
            KratosIdentities: self._writes.identities,
            RecordedWebhooks: self._ledger.webhooks,
            RegistrationCounts: self._writes.counts,
        }
        hints = get_type_hints(kind.__init__)
        return kind(**{name: ports[port] for name, port in hints.items() if name != "return"})

    def collect_events(self) -> list[DomainEvent]:
        """Take what the identities raised."""
        raised = [event for each in self._writes.identities for event in each.collect_events()]
        return [*self._writes.answers.collect_events(), *raised]

    def record(self, events: Sequence[tuple[DomainEvent, Provenance]]) -> None:
        """Record when this commits."""
        self._writes.recorded.extend(events)

    def commit(self) -> None:
        """Write everything to the ledger, or raise and write nothing."""
        ledger, writes = self._ledger, self._writes
        ledger.require_it_is_here()
        if ledger.commit_errors:
            raise ledger.commit_errors.popleft()
        changed = [
            each for each in writes.identities if each.changed or each.id not in self._begun_with
        ]
        for identity in changed:
            now = ledger.identities.find(identity.id)
            if (now and now.version) != self._begun_with.get(identity.id):
                raise ConcurrencyConflict("an identity was added or changed meanwhile")
        for identity in changed:
            identity.mark_stored()
        changed_ids = {each.id for each in changed}
        kept = [each for each in ledger.identities if each.id not in changed_ids]
        ledger.identities = InMemoryKratosIdentities([*kept, *changed])
        ledger.counts.by_day += writes.counts.by_day
        for identity_id, told in writes.answers.recorded.items():
            asked_at = ledger.asked_at.get(identity_id, told.date_occurred)
            ledger.asked_at[identity_id] = max(asked_at, told.date_occurred)
        for key, reason in writes.postponed.items():
            ledger.deliveries[key].due_at = ledger.now + POSTPONED_FOR
            ledger.deliveries[key].last_error = reason
        for key, wait in writes.set_aside.items():
            ledger.deliveries[key].due_at = ledger.now + wait
        for consumer, event_id in sorted(writes.settled):
            number = ledger.deliveries.pop((consumer, event_id)).attempts + 1
            ledger.attempts.append(Attempt(event_id, consumer, number, "succeeded"))
        for attempt in writes.failed:
            ledger.record(attempt)
        for event, provenance in writes.recorded:
            ledger.take_in(event, provenance)
        ledger.commits += 1
