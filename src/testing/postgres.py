"""The harness on a real PostgreSQL, in a database of its own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Row, make_url, text

from kratos_sync.application.application import Application, Subscriptions
from kratos_sync.application.consumer_factory import ConsumerFactory, ports_of
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.events import DomainEvent
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.infrastructure.application import adapters_in_transaction_of
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.ledger.inbox import PostgresUnitOfWork
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.migrations import History, migrate, migrate_application
from kratos_sync.infrastructure.postgres.connections import connection_arguments, open_connection
from kratos_sync.infrastructure.postgres.transaction import Transaction
from kratos_sync.infrastructure.settings import Settings
from kratos_sync.testing.harness import NewBackend
from kratos_sync.testing.ledger import Attempt, RecordedEvent

LONG: Final = timedelta(seconds=20)
MOST: Final = 1_000


@contextmanager
def new_database(server_url: str, name: str) -> Iterator[str]:
    """The URL of a new database on the server, which is dropped afterwards."""
    url = make_url(server_url).set(database=name)
    arguments = connection_arguments(SecretStr(server_url))
    with open_connection(arguments, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield url.render_as_string(hide_password=False)
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class PostgresBackend:
    """The service's own adapters on an empty database, and the application's in a transaction."""

    def __init__(
        self,
        database_url: str,
        subscriptions: Subscriptions,
        application: Application[Any, Any] | None,
        adapters: Mapping[Any, object],
    ) -> None:
        self._container = container = Container()
        settings = {"database_url": database_url, "broker_url": "redis://127.0.0.1:9/0"}
        container.settings.override(Settings.model_validate(settings))
        self._engine = container.engine()
        migrate(self._engine)
        if application is not None and application.migrations is not None:
            migrate_application(self._engine, History.at(application.migrations))
        container.subscriptions.override(subscriptions)
        container.kept_subscriptions().add_missing()
        in_transaction = adapters_in_transaction_of(
            application, container.adapters_in_transaction()
        )
        outside = {port: made for port, made in adapters.items() if port not in in_transaction}
        self.ports = {*in_transaction, *outside}
        served = [
            kind
            for kind in subscriptions.consumers.values()
            if self.ports.issuperset(ports_of(kind).values())
        ]
        self._in_transaction, self._outside = in_transaction, outside
        self._factory = ConsumerFactory(served, in_transaction, outside)
        self.failures = container.failures()
        self._subscriptions, self._claims = subscriptions, container.claims()

    def close(self) -> None:
        self._engine.dispose()

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    @property
    def events(self) -> Mapping[UUID, RecordedEvent]:
        rows = self._query(
            "SELECT id, name, subject, occurred_at, payload::text, source, dedupe_key,"
            " trace_context, recorded_at, hook FROM kratos_sync.events ORDER BY recorded_at, id"
        )
        return {row[0]: RecordedEvent(*tuple(row)) for row in rows}

    @property
    def attempts(self) -> Sequence[Attempt]:
        rows = self._query(
            "SELECT event_id, consumer, number, outcome, error"
            " FROM kratos_sync.attempts ORDER BY id"
        )
        return [Attempt(*tuple(row)) for row in rows]

    def publish(self, event: DomainEvent, provenance: Provenance) -> bool:
        with self._engine.begin() as connection:
            return record_many(connection, [(event, provenance)]) == 1

    def unit_of_work(self) -> PostgresUnitOfWork:
        return PostgresUnitOfWork(self._engine, self._factory, wake_relay=lambda: None)

    def due(self, consumer: str) -> Sequence[UUID]:
        kind = self._subscriptions.consumers[consumer]
        if not kind.ordered:
            return self._ids("failed_at IS NULL AND due_at <= now()", consumer)
        skips = kind.skips_dead_letters
        return self._claims.claim(consumer, MOST, ordered=True, skips_dead_letters=skips).event_ids

    def dead(self, consumer: str) -> Sequence[UUID]:
        return self._ids("failed_at IS NOT NULL", consumer)

    def advance(self, by: timedelta) -> None:
        self._query("UPDATE kratos_sync.deliveries SET due_at = due_at - :by", by=by)

    def identity(self, identity_id: UUID) -> KratosIdentity | None:
        with self.port(KratosIdentities) as identities:
            found: KratosIdentity | None = identities.find(identity_id)
        return found

    @contextmanager
    def port(self, port: object) -> Iterator[Any]:
        if port in self._outside:
            yield self._outside[port]
            return
        transaction = Transaction(self._engine)
        with transaction.begin(LONG):
            yield self._in_transaction[port](transaction)

    def _ids(self, condition: str, consumer: str) -> list[UUID]:
        statement = f"""
            SELECT event_id FROM kratos_sync.deliveries
            WHERE consumer = :consumer AND {condition} ORDER BY event_id
        """  # noqa: S608  # the conditions are ours
        rows = self._query(statement, consumer=consumer)
        return [row[0] for row in rows]

    def _query(self, statement: str, **parameters: object) -> Sequence[Row[Any]]:
        with self._engine.begin() as connection:
            result = connection.execute(text(statement), parameters)
            return result.all() if result.returns_rows else []


@contextmanager
def backends_on(server_url: str) -> Iterator[NewBackend]:
    """What makes backends, each on a new database; all are closed and dropped afterwards."""
    with ExitStack() as undo:

        def new_backend(
            subscriptions: Subscriptions,
            application: Application[Any, Any] | None,
            adapters: Mapping[Any, object],
        ) -> PostgresBackend:
            url = undo.enter_context(new_database(server_url, f"test_{uuid4().hex}"))
            backend = PostgresBackend(url, subscriptions, application, adapters)
            undo.callback(backend.close)
            return backend

        yield new_backend
