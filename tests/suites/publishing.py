"""Publishing from tests that have no event loop of their own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.application.ports.event_bus import Provenance, UnreadEvent
from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.ledger.group_commit import PostgresEventBus

T = TypeVar("T")


def bus_of(engine: Engine, wake_relay: Callable[[], None] = lambda: None) -> PostgresEventBus:
    """A bus to the engine's database; by default it wakes nobody."""
    url = engine.url.render_as_string(hide_password=False)
    return PostgresEventBus(SecretStr(url), wake_relay)


def running(bus: PostgresEventBus, scenario: Callable[[], Awaitable[T]]) -> T:
    """Run a scenario in a loop of its own, and let go of the bus' connections after it."""

    async def run() -> T:
        try:
            return await scenario()
        finally:
            await bus.stop()

    return asyncio.run(run())


def publish(
    bus: PostgresEventBus,
    event: DomainEvent,
    provenance: Provenance,
    payload: bytes | None = None,
) -> bool:
    """Publish one event."""
    published = event if payload is None else unread(event, payload)
    return running(bus, lambda: bus.publish(published, provenance))


def unread(event: DomainEvent, payload: bytes) -> UnreadEvent:
    """The event with this payload."""
    return UnreadEvent(type(event), event.id, event.date_occurred, event.subject, payload)
