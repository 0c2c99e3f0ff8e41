"""The unit of work of one batch, in one PostgreSQL transaction."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.ledger.inbox import PostgresInbox
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.postgres.transaction import Transaction


class UnknownPort(Exception):
    """A consumer asks in its constructor for something that no adapter serves."""


class ConsumerFactory:
    """Makes consumers, each with the adapters that serve the ports it asks for.

    ``in_transaction`` gives for a port what makes its adapter in a transaction; ``outside`` gives
    the adapter itself, for what does not write to our database (mail, another service).
    Raises UnknownPort at once, not when the first event comes.
    """

    def __init__(
        self,
        kinds: Iterable[type[Consumer[Any]]],
        in_transaction: Mapping[type[Any], Callable[[Transaction], Any]],
        outside: Mapping[type[Any], object] | None = None,
    ) -> None:
        self._in_transaction = in_transaction
        self._outside = outside or {}
        ports = {*self._in_transaction, *self._outside}
        self._asked = {kind: _asked_by(kind) for kind in kinds}
        for kind, asked in self._asked.items():
            if unknown := [port for port in asked.values() if port not in ports]:
                names = ", ".join(getattr(port, "__name__", str(port)) for port in unknown)
                raise UnknownPort(f"{kind.__name__} asks for {names}, which nothing serves")

    def __call__(self, kind: type[Consumer[Any]], transaction: Transaction) -> Consumer[Any]:
        """Make a consumer whose ports work in the transaction."""
        asked = self._asked[kind].items()
        return kind(**{name: self._serve(port, transaction) for name, port in asked})

    def _serve(self, port: type[Any], transaction: Transaction) -> object:
        if port in self._outside:
            return self._outside[port]
        return self._in_transaction[port](transaction)


def _asked_by(kind: type[Consumer[Any]]) -> dict[str, Any]:
    return {
        name: parameter.annotation
        for name, parameter in inspect.signature(kind, eval_str=True).parameters.items()
        # A consumer that asks for nothing inherits the protocol's (*args, **kwargs).
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    }


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

    def savepoint(self) -> None:
        """Let every repository remember how things stand."""
        self._transaction.savepoint()

    def roll_back_to_savepoint(self) -> bool:
        """Let every repository go back there, unless something was executed since."""
        return self._transaction.roll_back_to_savepoint()

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
