"""What a suite may ask of a ledger, and the real one behind the same face."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Engine, text

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumer_factory import ConsumerFactory
from kratos_sync.application.consumers.count_registrations import RegistrationCounts
from kratos_sync.application.ports.dead_letters import FailedAttempt
from kratos_sync.application.ports.deletions import DeletionFinalizer
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import KratosAnswers
from kratos_sync.application.ports.unit_of_work import UnitOfWork
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.domain.events import DomainEvent
from kratos_sync.domain.kratos_identities import KratosIdentities, RecordedWebhooks
from kratos_sync.infrastructure.deletion import PostgresDeletionFinalizer
from kratos_sync.infrastructure.identities.kratos_identities import PostgresKratosIdentities
from kratos_sync.infrastructure.identities.recorded_webhooks import PostgresRecordedWebhooks
from kratos_sync.infrastructure.identities.registration_counts import PostgresRegistrationCounts
from kratos_sync.infrastructure.kratos.refetch import PostgresKratosAnswers
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.ledger.inbox import PostgresFailures, PostgresUnitOfWork
from kratos_sync.infrastructure.ledger.policies import PostgresConsumerPolicies
from kratos_sync.testing.kratos import InMemoryDocuments, InMemoryKratos
from kratos_sync.testing.ledger import Attempt, Delivery, Key, RecordedEvent
from tests.suites.publishing import bus_of, publish


class Ledger(Protocol):
    """The ports EventBus and Failures, units of work, and a look at what is committed."""

    def publish(self, event: DomainEvent, provenance: Provenance) -> bool: ...
    def record(self, attempt: FailedAttempt) -> None: ...
    def unit_of_work(self) -> UnitOfWork: ...

    subscriptions: Subscriptions

    @property
    def kratos(self) -> InMemoryKratos: ...
    @property
    def events(self) -> Mapping[UUID, RecordedEvent]: ...
    @property
    def deliveries(self) -> Mapping[Key, Delivery]: ...
    @property
    def attempts(self) -> list[Attempt]: ...
    @property
    def now(self) -> datetime: ...


def policies_of(claims: PostgresClaims) -> PostgresConsumerPolicies:
    """The policies in the database of these claims."""
    return PostgresConsumerPolicies(claims._engine)


SUBSCRIBE_ONLY = text("""
    WITH removed AS (
        DELETE FROM kratos_sync.subscriptions s WHERE NOT EXISTS (
            SELECT FROM unnest(CAST(:events AS text[]), CAST(:consumers AS text[])) AS w (e, c)
            WHERE (w.e, w.c) = (s.event, s.consumer)))
    INSERT INTO kratos_sync.subscriptions
    SELECT unnest(CAST(:events AS text[])), unnest(CAST(:consumers AS text[]))
    ON CONFLICT DO NOTHING
""")


def subscribe_only(engine: Engine, wanted: Subscriptions) -> None:
    """Let the database have these subscriptions, and none that an application has added."""
    events, consumers = map(list, zip(*wanted, strict=True))
    with engine.begin() as connection:
        connection.execute(SUBSCRIBE_ONLY, {"events": events, "consumers": consumers})


class PostgresLedger:
    """The adapters on PostgreSQL, with nobody to wake.

    Only the service's own consumers are subscribed there, whatever an application has added.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.subscriptions = Subscriptions(SUBSCRIPTIONS)
        self.kratos = InMemoryKratos(InMemoryDocuments())
        self.failures = PostgresFailures(engine)

    def publish(self, event: DomainEvent, provenance: Provenance) -> bool:
        return publish(bus_of(self.engine), event, provenance)

    def record(self, attempt: FailedAttempt) -> None:
        self.failures.record(attempt)

    @property
    def subscriptions(self) -> Subscriptions:
        return self._subscriptions

    @subscriptions.setter
    def subscriptions(self, wanted: Subscriptions) -> None:
        self._subscriptions = wanted
        subscribe_only(self.engine, wanted)

    def unit_of_work(self, *besides: type[Consumer[Any]]) -> PostgresUnitOfWork:
        factory = ConsumerFactory(
            kinds=[*self._subscriptions.consumers.values(), *besides],
            in_transaction={
                DeletionFinalizer: partial(PostgresDeletionFinalizer, kratos=lambda: self.kratos),
                KratosAnswers: partial(PostgresKratosAnswers, kratos=lambda: self.kratos),
                KratosIdentities: PostgresKratosIdentities,
                RecordedWebhooks: PostgresRecordedWebhooks,
                RegistrationCounts: PostgresRegistrationCounts,
            },
        )
        return PostgresUnitOfWork(self.engine, factory, wake_relay=lambda: None)

    @property
    def events(self) -> dict[UUID, RecordedEvent]:
        rows = self.query(
            "SELECT id, name, subject, occurred_at, payload::text AS payload, source, dedupe_key,"
            " trace_context AS traceparent FROM kratos_sync.events ORDER BY id"
        )
        return {row["id"]: RecordedEvent(**row) for row in rows}

    @property
    def deliveries(self) -> dict[Key, Delivery]:
        rows = self.query("SELECT * FROM kratos_sync.deliveries ORDER BY consumer, event_id")
        return {
            (row["consumer"], row["event_id"]): Delivery(
                row["due_at"], row["attempts"], row["last_error"], row["failed_at"] is not None
            )
            for row in rows
        }

    @property
    def attempts(self) -> list[Attempt]:
        rows = self.query(
            "SELECT event_id, consumer, number, outcome, error"
            " FROM kratos_sync.attempts ORDER BY id"
        )
        return [Attempt(**row) for row in rows]

    @property
    def now(self) -> datetime:
        now: datetime = self.query("SELECT now() AS now")[0]["now"]
        return now

    def query(self, statement: str, **parameters: object) -> list[dict[str, Any]]:
        """Run a statement in a transaction of its own, and give what it returns."""
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), parameters)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []
