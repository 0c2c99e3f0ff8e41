"""The unit of work of one batch, in one PostgreSQL transaction."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from application.consumer import Consumer
from application.ports.event_bus import Provenance
from domain.events import DomainEvent
from infrastructure.consumer_factory import ConsumerFactory
from infrastructure.ledger.inbox import PostgresInbox
from infrastructure.ledger.record import record_many
from infrastructure.transaction import Transaction


class PostgresUnitOfWork:
    """The UnitOfWork port; the consumers it builds share its transaction."""

    def __init__(
        self,
        transaction: Transaction,
        consumers: ConsumerFactory,
        wake_relay: Callable[[], None],
    ) -> None:
        self._transaction = transaction
        self._consumers = consumers
        self._wake_relay = wake_relay
        self._recorded = False
        self.inbox = PostgresInbox(transaction)

    def begin(self, time_limit: timedelta) -> AbstractContextManager[None]:
        """Open the transaction."""
        self._recorded = False
        return self._transaction.begin(time_limit)

    def consumer(self, kind: type[Consumer[Any]]) -> Consumer[Any]:
        """Build a consumer for this transaction."""
        return self._consumers(kind, self._transaction)

    def checkpoint(self) -> None:
        """Let every repository remember how things stand."""
        self._transaction.checkpoint()

    def take_back(self) -> bool:
        """Let every repository go back there, unless something was executed since."""
        return self._transaction.take_back()

    def collect_events(self) -> list[DomainEvent]:
        """Take what the aggregates of every repository raised."""
        return self._transaction.collect_events()

    def record(self, events: Sequence[tuple[DomainEvent, Provenance]]) -> None:
        """Record events in the transaction."""
        record_many(self._transaction.connection, events)
        self._recorded = bool(events)

    def abandon(self) -> None:
        """Cut the transaction's connection."""
        self._transaction.abandon()

    def commit(self) -> None:
        """Flush, commit, and wake the relay if there is something new for it."""
        self._transaction.commit()
        if self._recorded:
            self._wake_relay()
