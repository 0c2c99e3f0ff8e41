"""The unit of work of one batch, in one PostgreSQL transaction."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Engine

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.ledger.inbox import PostgresInbox
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.postgres.transaction import Transaction


class UnknownPort(Exception):
    """A consumer's constructor has a parameter that no adapter serves."""


class ConsumerFactory:
    """Makes consumers, each with the adapters for its constructor's parameters.

    ``in_transaction`` maps a port to the factory of its adapter in a transaction; ``outside`` maps
    a port to its adapter, for mail or another service. The constructor raises UnknownPort.
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
        # A consumer without a constructor inherits the protocol's (*args, **kwargs).
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    }


class PostgresUnitOfWork(Transaction):
    """The UnitOfWork port: a transaction with the inbox, the event log and the consumers."""

    def __init__(
        self, engine: Engine, consumers: ConsumerFactory, wake_relay: Callable[[], None]
    ) -> None:
        """``wake_relay`` is called after a commit with new events."""
        super().__init__(engine)
        self._consumers = consumers
        self._wake_relay = wake_relay
        self._has_recorded = False

    @property
    def inbox(self) -> PostgresInbox:
        return PostgresInbox(self)

    def consumer(self, kind: type[Consumer[Any]]) -> Consumer[Any]:
        return self._consumers(kind, self)

    def record(self, events: Sequence[tuple[DomainEvent, Provenance]]) -> None:
        record_many(self.connection, events)
        self._has_recorded = bool(events)

    def commit(self) -> None:
        super().commit()
        if self._has_recorded:
            self._wake_relay()

    def _open(self, connection: Connection, time_limit: timedelta) -> None:
        self._has_recorded = False
        super()._open(connection, time_limit)
