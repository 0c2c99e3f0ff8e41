"""The unit of work of one batch, in one PostgreSQL transaction."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumer_factory import ConsumerFactory
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.ledger.inbox import PostgresInbox
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.postgres.transaction import Transaction


class PostgresUnitOfWork(Transaction):
    """The UnitOfWork port: a transaction with the inbox, the event log and the consumers."""

    def __init__(
        self,
        engine: Engine,
        consumers: ConsumerFactory[Transaction],
        wake_relay: Callable[[], None],
    ) -> None:
        """``wake_relay`` is called after a commit with new events."""
        super().__init__(engine)
        self._consumers = consumers
        self._wake_relay = wake_relay

    @property
    def inbox(self) -> PostgresInbox:
        return PostgresInbox(self)

    def consumer(self, kind: type[Consumer[Any]]) -> Consumer[Any]:
        return self._consumers(kind, self)

    def record(self, events: Sequence[tuple[DomainEvent, Provenance]]) -> None:
        record_many(self.connection, events)
        self.has_made_due |= bool(events)

    def commit(self) -> None:
        super().commit()
        if self.has_made_due:
            self._wake_relay()

    def _open(self, connection: Connection, time_limit: timedelta) -> None:
        self.has_made_due = False
        super()._open(connection, time_limit)
