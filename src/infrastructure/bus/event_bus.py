"""The event bus: recorded in the ledger, delivered through Dramatiq by relay and worker."""

from collections.abc import Callable

from sqlalchemy import Engine

from application.ports.event_bus import Provenance
from domain.events import DomainEvent
from infrastructure.database import errors_in_our_words
from infrastructure.ledger.record import record


class DramatiqEventBus:
    """The EventBus port."""

    def __init__(self, engine: Engine, wake_relay: Callable[[], None]) -> None:
        self._engine = engine
        self._wake_relay = wake_relay

    def publish(self, event: DomainEvent, provenance: Provenance) -> bool:
        """Record in one commit; wake the relay after it."""
        with errors_in_our_words(), self._engine.begin() as connection:
            recorded = record(connection, event, provenance)
        if recorded:
            self._wake_relay()
        return recorded
