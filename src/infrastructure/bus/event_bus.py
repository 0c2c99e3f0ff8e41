"""The event bus: recorded in the ledger, delivered through Dramatiq by relay and worker."""

from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from application.ports.event_bus import LedgerUnavailable, Provenance
from application.ports.unit_of_work import ConcurrencyConflict
from domain.events import DomainEvent
from infrastructure.database import QUERY_CANCELED, errors_in_our_words
from infrastructure.ledger.record import record


class DramatiqEventBus:
    """The EventBus port."""

    def __init__(self, engine: Engine, wake_relay: Callable[[], None]) -> None:
        self._engine = engine
        self._wake_relay = wake_relay

    def publish(self, event: DomainEvent, provenance: Provenance) -> bool:
        """Record in one commit; wake the relay after it."""
        try:
            with errors_in_our_words(), self._engine.begin() as connection:
                recorded = record(connection, event, provenance)
        except ConcurrencyConflict as error:
            raise LedgerUnavailable("PostgreSQL was too busy") from error
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == QUERY_CANCELED:
                raise LedgerUnavailable("PostgreSQL was too slow") from error
            raise
        if recorded:
            self._wake_relay()
        return recorded
