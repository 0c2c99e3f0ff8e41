"""Runs an application in a test: webhooks in, consumers run, and what became of each delivery.

In memory by default, on a real PostgreSQL with ``pytest --kratos-sync-postgres``.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeVar
from uuid import UUID

from uuid_utils.compat import uuid7

from kratos_sync.api.http.webhooks.identity_body import read_identity
from kratos_sync.application.application import Application, InvalidApplication, Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumer_factory import names_of, ports_of, require_no_transaction
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.pipeline.batch import read_event
from kratos_sync.application.ports.dead_letters import Failures
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.unit_of_work import PendingDelivery, UnitOfWork
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.domain.events import DomainEvent, KratosIdentityUpdated
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.infrastructure.application import require_shape
from kratos_sync.testing.ledger import Attempt, InMemoryLedger, RecordedEvent
from kratos_sync.testing.unit_of_work import OWN_PORTS
from kratos_sync.testing.webhooks import Webhook

Event = TypeVar("Event", bound=DomainEvent)
MOST_ROUNDS = 1_000
"""How often ``deliver`` goes on with what became due meanwhile."""


class Failed(NamedTuple):
    """An event that a consumer failed on, and the recorded error: its type, text and place."""

    event: DomainEvent
    error: str


class Backend(Protocol):
    """What the harness needs from a ledger."""

    @property
    def ports(self) -> Collection[object]: ...
    @property
    def now(self) -> datetime: ...
    @property
    def failures(self) -> Failures: ...
    @property
    def events(self) -> Mapping[UUID, RecordedEvent]: ...
    @property
    def attempts(self) -> Sequence[Attempt]: ...
    def publish(self, event: DomainEvent, provenance: Provenance) -> bool: ...
    def unit_of_work(self) -> UnitOfWork: ...
    def due(self, consumer: str) -> Sequence[UUID]: ...
    def dead(self, consumer: str) -> Sequence[UUID]: ...
    def advance(self, by: timedelta) -> None: ...
    def identity(self, identity_id: UUID) -> KratosIdentity | None: ...
    def port(self, port: object) -> AbstractContextManager[Any]: ...


NewBackend: TypeAlias = Callable[
    [Subscriptions, Application[Any, Any] | None, Mapping[Any, object]], Backend
]


class InMemoryBackend:
    """A ledger in memory."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        application: Application[Any, Any] | None,
        adapters: Mapping[Any, object],
    ) -> None:
        ports = () if application is None else application.adapters_in_transaction
        in_transaction = [adapters[each.port] for each in ports if each.port in adapters]
        self.ledger = InMemoryLedger(subscriptions, adapters, in_transaction)
        self.ledger.now = datetime.now(UTC)
        self.ports = {*OWN_PORTS, *adapters}
        self.failures = self.ledger
        self.publish = self.ledger.publish
        self.unit_of_work = self.ledger.unit_of_work
        self.due = self.ledger.due
        self._adapters = adapters

    @property
    def now(self) -> datetime:
        return self.ledger.now

    @property
    def events(self) -> Mapping[UUID, RecordedEvent]:
        return self.ledger.events

    @property
    def attempts(self) -> Sequence[Attempt]:
        return self.ledger.attempts

    def dead(self, consumer: str) -> Sequence[UUID]:
        deliveries = self.ledger.deliveries.items()
        return [event_id for (name, event_id), d in deliveries if d.is_dead and name == consumer]

    def advance(self, by: timedelta) -> None:
        self.ledger.now += by

    def identity(self, identity_id: UUID) -> KratosIdentity | None:
        return self.ledger.identities.find(identity_id)

    @contextmanager
    def port(self, port: object) -> Iterator[Any]:
        yield self._adapters[port]


class Harness:
    """An application under test, with the service's own consumers.

    ``adapters`` serve ports: fakes in place of the application's adapters. On PostgreSQL the
    application's ``adapters_in_transaction`` are used, and fakes for their ports are not.
    """

    backend: ClassVar[NewBackend] = InMemoryBackend

    def __init__(
        self,
        application: Application[Any, Any] | None = None,
        *,
        adapters: Mapping[Any, object] | None = None,
    ) -> None:
        """Leaves deliveries pending of consumers that ask for a port without an adapter.

        Raises InvalidApplication for an application that the service would refuse.
        """
        if application is not None:
            require_shape(application)
        own = {} if application is None else application.subscriptions
        self._subscriptions = Subscriptions(SUBSCRIPTIONS, own)
        in_transaction: set[object] = {*OWN_PORTS}
        if application is not None:
            in_transaction |= {each.port for each in application.adapters_in_transaction}
        for consumer in self._subscriptions.consumers.values():
            require_no_transaction(consumer, in_transaction)
        self._backend = type(self).backend(self._subscriptions, application, adapters or {})
        self._unserved = {
            name: missing
            for name, consumer in self._subscriptions.consumers.items()
            if (missing := [p for p in ports_of(consumer).values() if p not in self._backend.ports])
        }

    def receive(self, webhook: Webhook | Mapping[str, Any] | bytes) -> KratosIdentityUpdated:
        """Receive a webhook, or its body, as the api does; returns the recorded event.

        Raises InvalidField or NotJson for a body that the api would reject.
        """
        body = webhook.body if isinstance(webhook, Webhook) else webhook
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        read_identity(text)
        event = KratosIdentityUpdated.from_json(uuid7(), self._backend.now, json.loads(text))
        hook = webhook.hook if isinstance(webhook, Webhook) else None
        self._backend.publish(event, Provenance("webhook", hook=hook))
        return event

    def publish(self, event: DomainEvent) -> None:
        """Record an event with its deliveries."""
        self._backend.publish(event, Provenance("test"))

    def deliver(self, *, expect_failures: bool = False) -> None:
        """Deliver what is due, and what becomes due by it, until nothing is.

        What consumers raise is recorded as in production; the first of it is raised here in the
        end, unless ``expect_failures``. RetryLater is no failure.
        """
        errors: list[BaseException] = []
        for _ in range(MOST_ROUNDS):
            due = {
                consumer: event_ids
                for name, consumer in self._subscriptions.consumers.items()
                if name not in self._unserved and (event_ids := self._backend.due(name))
            }
            if not due:
                break
            for consumer, event_ids in due.items():
                errors += self._deliver(consumer, event_ids)
        if errors and not expect_failures:
            raise errors[0]

    def advance(self, **duration: float) -> None:
        """Let as much time pass as ``timedelta(**duration)``: what was delayed becomes due."""
        self._backend.advance(timedelta(**duration))

    def consumed(self, consumer: type[Consumer[Any]]) -> list[DomainEvent]:
        """The events that a consumer has consumed, in the order it did."""
        return [self._event(each.event_id) for each in self._attempts(consumer, "succeeded")]

    def postponed(self, consumer: type[Consumer[Any]]) -> list[DomainEvent]:
        """The events for which a consumer raised RetryLater, each as often as it did."""
        return [self._event(each.event_id) for each in self._attempts(consumer, "postponed")]

    def failed(self, consumer: type[Consumer[Any]]) -> list[Failed]:
        """The failed attempts of a consumer, the last of a dead letter included."""
        return [
            Failed(self._event(each.event_id), each.error or "")
            for each in self._attempts(consumer, "failed", "gave_up")
        ]

    def dead(self, consumer: type[Consumer[Any]]) -> list[DomainEvent]:
        """The events of a consumer's dead letters."""
        self._require_served(consumer)
        return [self._event(each) for each in self._backend.dead(consumer.name)]

    def raised(self, kind: type[Event]) -> list[Event]:
        """The recorded events of that kind, in the order they were recorded."""
        events = [self._event(each) for each in self._backend.events]
        return [each for each in events if isinstance(each, kind)]

    def identity(self, identity_id: UUID) -> KratosIdentity | None:
        """Our copy of an identity."""
        return self._backend.identity(identity_id)

    def port(self, port: object) -> AbstractContextManager[Any]:
        """What serves a port, to look into: on PostgreSQL in a transaction of its own."""
        return self._backend.port(port)

    def _deliver(
        self, consumer: type[Consumer[Any]], event_ids: Sequence[UUID]
    ) -> Iterator[BaseException]:
        for start in range(0, len(event_ids), consumer.batch_size):
            ids = event_ids[start : start + consumer.batch_size]
            events = self._subscriptions.events_of(consumer.name)
            unit, failures = self._backend.unit_of_work(), self._backend.failures
            result = deliver(Batch(consumer, ids, unit, failures, events=events))
            yield from (each.error for each in result.failed if not each.attempt.is_postponed)

    def _attempts(self, consumer: type[Consumer[Any]], *outcomes: str) -> list[Attempt]:
        self._require_served(consumer)
        attempts = self._backend.attempts
        return [e for e in attempts if e.consumer == consumer.name and e.outcome in outcomes]

    def _require_served(self, consumer: type[Consumer[Any]]) -> None:
        if consumer.name not in self._subscriptions.consumers:
            raise InvalidApplication(f"{consumer.name} is not subscribed to anything")
        if unserved := self._unserved.get(consumer.name):
            raise InvalidApplication(
                f"{consumer.name} asks for {names_of(unserved)}: give the harness adapters"
            )

    def _event(self, event_id: UUID) -> DomainEvent:
        e = self._backend.events[event_id]
        return read_event(
            PendingDelivery(e.id, 1, e.name, e.subject, e.occurred_at, e.payload, None)._replace(
                source=e.source, recorded_at=e.recorded_at, hook=e.hook
            )
        )
