"""Units of work on a ledger in memory: nothing is visible before the commit."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumer_factory import ConsumerFactory, ports_of
from kratos_sync.application.consumers.count_registrations import RegistrationCounts
from kratos_sync.application.footprint import Admission, Size, footprint_of
from kratos_sync.application.ports.dead_letters import QUARANTINED_ERRORS, FailedAttempt
from kratos_sync.application.ports.deletions import DeletionFinalizer
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import KratosAnswers
from kratos_sync.application.ports.unit_of_work import (
    ConcurrencyConflict,
    PendingDelivery,
    TimeLimitExceeded,
)
from kratos_sync.domain.events import DomainEvent, KratosIdentityHinted
from kratos_sync.domain.kratos_identities import KratosIdentities, RecordedWebhooks
from kratos_sync.testing.fakes import (
    InMemoryDeletionFinalizer,
    InMemoryKratosAnswers,
    InMemoryKratosIdentities,
    InMemoryRegistrationCounts,
)
from kratos_sync.testing.ledger import Attempt, InMemoryLedger, Key

POSTPONED_FOR: Final = timedelta(minutes=1)
OWN_PORTS: Final = (
    DeletionFinalizer,
    KratosAnswers,
    KratosIdentities,
    RecordedWebhooks,
    RegistrationCounts,
)
"""The ports that are served in memory without an adapter of the test."""


class _States:
    """What fakes keep, to be restored after a rollback."""

    def __init__(self, fakes: Sequence[object]) -> None:
        self._states = [(fake, deepcopy(fake.__dict__)) for fake in fakes]

    def restore(self) -> None:
        for fake, state in self._states:
            fake.__dict__.clear()
            fake.__dict__.update(deepcopy(state))


@dataclass
class _Writes:
    """What a unit of work has done and not committed."""

    identities: InMemoryKratosIdentities
    answers: InMemoryKratosAnswers
    locked: set[Key] = field(default_factory=set)
    settled: set[Key] = field(default_factory=set)
    postponed: dict[Key, str] = field(default_factory=dict)
    set_aside: dict[Key, timedelta] = field(default_factory=dict)
    recorded: list[tuple[DomainEvent, Provenance]] = field(default_factory=list)
    failed: list[FailedAttempt] = field(default_factory=list)
    counts: InMemoryRegistrationCounts = field(default_factory=InMemoryRegistrationCounts)


class InMemoryUnitOfWork:
    """The ports UnitOfWork and Inbox."""

    def __init__(self, ledger: InMemoryLedger) -> None:
        self._ledger = ledger
        self._uncommitted: _Writes | None = None
        self.inbox = self
        self.has_savepoints = ledger.has_savepoints
        self._savepoint_in_database = self._has_ports_in_transaction = False

    @contextmanager
    def begin(self, time_limit: timedelta) -> Iterator[None]:  # noqa: ARG002  # the port's
        """Copy the identities; a commit writes them back."""
        self._ledger.require_available()
        answers = InMemoryKratosAnswers(
            self._ledger.kratos,
            self._subjects,
            lambda: self._ledger.now,
            self._is_answered,
            self._first_hinted,
        )
        self._uncommitted = _Writes(deepcopy(self._ledger.identities), answers)
        self._begun_with = {each.id: each.version for each in self._ledger.identities}
        before, commits = _States(self._ledger.in_transaction), self._ledger.commits
        try:
            yield
        finally:
            self._ledger.locked -= self._writes.locked
            self._uncommitted = None
            if self._ledger.commits == commits:
                before.restore()

    @property
    def _writes(self) -> _Writes:
        if self._uncommitted is None:
            raise RuntimeError("no transaction has begun")
        return self._uncommitted

    def _subjects(self) -> set[UUID]:
        return {self._ledger.events[event_id].subject for _, event_id in self._writes.locked}

    def _is_answered(self, hint: KratosIdentityHinted) -> bool:
        recorded_at = next(
            self._ledger.deliveries[key].recorded_at
            for key in self._writes.locked
            if key[1] == hint.id
        )
        asked_at = self._ledger.asked_at.get(hint.identity_id)
        return recorded_at is not None and asked_at is not None and recorded_at < asked_at

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
        """Lock what is due and not locked by another unit of work."""
        self._ledger.require_available()
        pending = []
        for event_id in sorted(set(event_ids)):
            key = consumer, event_id
            delivery = self._ledger.deliveries.get(key)
            if delivery is None or delivery.is_dead or key in self._ledger.locked:
                continue
            if delivery.due_at > self._ledger.now:
                continue
            event = self._ledger.events[event_id]
            self._writes.locked.add(key)
            self._ledger.locked.add(key)
            pending.append(
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
                    event.hook,
                )
            )
        if admission is None:
            return pending
        sizes = [
            Size(each.event_id, each.subject, footprint_of(each.payload.encode()), 0)
            for each in pending
        ]
        chosen = admission.choose(sizes)
        return [each for each in pending if each.event_id in chosen]

    def set_aside(self, consumer: str, footprints: Mapping[UUID, int], wait: timedelta) -> None:
        self._writes.set_aside |= {(consumer, event_id): wait for event_id in footprints}

    def settle(
        self,
        consumer: str,
        deliveries: Sequence[PendingDelivery],
        started_at: datetime,  # noqa: ARG002  # the port's
        duration: timedelta,  # noqa: ARG002  # the port's
    ) -> None:
        self._writes.settled |= {(consumer, delivery.event_id) for delivery in deliveries}

    def wake_next(self, consumer: str, subjects: Collection[UUID]) -> None:
        """What waits for its turn is due in memory, and not delivered before it."""

    def fail(self, attempts: Sequence[FailedAttempt]) -> None:
        self._writes.failed.extend(attempts)

    def savepoint(self, *, in_database: bool = False) -> None:
        self._savepoint_in_database = in_database
        self._writes.identities.savepoint()
        self._counts_before = deepcopy(self._writes.counts)
        self._recorded_before = self._writes.answers.recorded.copy()
        self._facts_before = self._writes.answers.facts.copy()
        self._fakes_before = _States(self._ledger.in_transaction)

    def write_deferred(self) -> None:
        """Writes in memory never fail."""

    def end_events(self) -> None:
        """A consumer cannot end what is in memory."""

    def is_conflict(self, error: BaseException) -> bool:
        return isinstance(error, ConcurrencyConflict)

    def roll_back_to_savepoint(self, error: BaseException) -> bool:
        """Restore the state of the objects that consumers have.

        As with PostgreSQL, an interruption may have come in the middle of their work.
        """
        if isinstance(error, TimeLimitExceeded) and self._has_ports_in_transaction:
            return False
        self._writes.identities.roll_back_to_savepoint()
        self._writes.answers.recorded = self._recorded_before
        self._writes.answers.facts = self._facts_before
        self._writes.counts.__dict__.update(self._counts_before.__dict__)
        self._fakes_before.restore()
        return self.has_savepoints or self._savepoint_in_database

    def release(self, consumer: str, event_ids: Sequence[UUID]) -> None:
        """Due deliveries stay due: there are no leases in memory."""

    def abandon(self) -> None:
        """There is no connection to cut."""

    def postpone(self, consumer: str, event_ids: Sequence[UUID], reason: str) -> None:
        self._writes.postponed |= {(consumer, event_id): reason for event_id in event_ids}

    def consumer(self, kind: type[Consumer[Any]]) -> Consumer[Any]:
        writes, ledger = self._writes, self._ledger
        outside = [each for each in ledger.adapters.values() if each not in ledger.in_transaction]
        self._has_ports_in_transaction = any(
            ledger.adapters.get(port) not in outside for port in ports_of(kind).values()
        )
        finalizer = InMemoryDeletionFinalizer(ledger.kratos, ledger.awaited)
        own: dict[Any, Callable[[object], object]] = {
            DeletionFinalizer: lambda _: finalizer,
            KratosAnswers: lambda _: writes.answers,
            KratosIdentities: lambda _: writes.identities,
            RecordedWebhooks: lambda _: ledger.webhooks,
            RegistrationCounts: lambda _: writes.counts,
        }
        return ConsumerFactory([kind], own, ledger.adapters)(kind, self)

    def collect_events(self) -> list[DomainEvent]:
        raised = [event for each in self._writes.identities for event in each.collect_events()]
        return [*self._writes.answers.collect_events(), *raised]

    def record(self, events: Sequence[tuple[DomainEvent, Provenance]]) -> None:
        self._writes.recorded.extend(events)

    def commit(self) -> None:
        """Write everything to the ledger, or raise and write nothing."""
        ledger, writes = self._ledger, self._writes
        ledger.require_available()
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
        for identity_id, answer in writes.answers.recorded.items():
            asked_at = ledger.asked_at.get(identity_id, answer.date_occurred)
            ledger.asked_at[identity_id] = max(asked_at, answer.date_occurred)
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
            ledger.add(event, provenance)
        ledger.commits += 1
