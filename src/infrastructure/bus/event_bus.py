"""The event bus: records events in the ledger; relay and worker deliver them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from pydantic import SecretStr

from kratos_sync.application.ports.event_bus import Provenance, Publishable
from kratos_sync.infrastructure.ledger.group_commit import GroupCommit
from kratos_sync.infrastructure.ledger.notifications import LoopWakeUp
from kratos_sync.infrastructure.ledger.recording import EventRow
from kratos_sync.infrastructure.observability.observer import UNOBSERVED, Observer
from kratos_sync.infrastructure.observability.spans import NO_SPANS, Spans
from kratos_sync.infrastructure.postgres.connections import connection_arguments

# Kratos gives a webhook 30 s, in which several attempts have to fit.
STATEMENT_TIMEOUT: Final = timedelta(seconds=4)


class PostgresEventBus:
    """The EventBus port: callers that publish at the same time share a commit."""

    def __init__(
        self,
        database_url: SecretStr,
        wake_relay: Callable[[], None] | None = None,
        observer: Observer = UNOBSERVED,
        spans: Spans = NO_SPANS,
    ) -> None:
        """Connect when first used; `wake_relay` is called once after each commit.

        By default it notifies the relay through PostgreSQL.
        """
        arguments = connection_arguments(database_url, STATEMENT_TIMEOUT)
        self._wake_up = LoopWakeUp(arguments)
        self._ledger = GroupCommit(arguments, wake_relay or self._wake_up, observer, spans)

    async def publish(self, event: Publishable, provenance: Provenance) -> bool:
        return await self._ledger.record(EventRow.of(event, provenance))

    async def stop(self) -> None:
        """Record what is waiting, and close the connections."""
        await self._ledger.stop()
        await self._wake_up.stop()
