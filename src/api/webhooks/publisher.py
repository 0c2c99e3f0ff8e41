"""Publishing for callers that can wait: what Kratos gives up on after three attempts is lost."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

import anyio
import anyio.to_thread
import structlog

from application.ports.event_bus import EventBus, LedgerUnavailable, Provenance
from domain.events import DomainEvent

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class TooManyCallsWait(LedgerUnavailable):
    """As many calls as are allowed wait for the ledger already."""


class Published(NamedTuple):
    """The id that the event was published under, and whether it had been recorded before."""

    event_id: UUID
    duplicate: bool


class PatientPublisher:
    """Publishes from threads, and holds calls while the ledger is away, both bounded in number."""

    def __init__(
        self,
        bus: EventBus,
        *,
        concurrency: int,
        max_waiting: int,
        patience: timedelta,
        pause: timedelta = timedelta(seconds=1),
    ) -> None:
        """Use up to `concurrency` threads, one connection each, and let `max_waiting` calls wait.

        A call begins no attempt later than `patience` after it came, and pauses between two.
        """
        self._bus = bus
        self._threads = anyio.CapacityLimiter(concurrency)
        self._max_calls = concurrency + max_waiting
        self._patience = patience
        self._pause = pause
        self._calls = 0

    async def publish(self, event: Callable[[], DomainEvent], provenance: Provenance) -> Published:
        """Publish an event, made anew for each attempt; raises LedgerUnavailable.

        An attempt whose commit was lost sight of may have recorded its event, so the next one
        needs an id of its own; the dedupe key tells them apart.
        """
        if self._calls >= self._max_calls:
            raise TooManyCallsWait
        self._calls += 1
        try:
            return await self._publish(event, provenance)
        finally:
            self._calls -= 1

    async def _publish(self, event: Callable[[], DomainEvent], provenance: Provenance) -> Published:
        failure = LedgerUnavailable()
        # A deadline cuts waiting short, never an attempt under way: a thread cannot be stopped.
        with anyio.move_on_after(self._patience.total_seconds()):
            while True:
                attempt = event()
                try:
                    recorded = await anyio.to_thread.run_sync(
                        self._bus.publish, attempt, provenance, limiter=self._threads
                    )
                except LedgerUnavailable as error:
                    failure = error
                    _log.warning("webhook_held", error=type(error).__qualname__)
                    await anyio.sleep(self._pause.total_seconds())
                else:
                    return Published(attempt.id, duplicate=not recorded)
        raise failure
