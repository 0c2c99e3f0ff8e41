"""Publishing for callers that can wait: what Kratos gives up on after three attempts is lost."""

from datetime import timedelta
from typing import Final

import anyio
import anyio.to_thread
import structlog

from application.ports.event_bus import EventBus, LedgerUnavailable, Provenance
from domain.events import DomainEvent

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class TooManyCallsWait(LedgerUnavailable):
    """As many calls wait for the ledger as may, or this one waited too long for its turn."""


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

    async def publish(self, event: DomainEvent, provenance: Provenance) -> bool:
        """Whether the event was recorded now, and not before; raises LedgerUnavailable.

        The attempts are of one event: had one committed and not been heard of, the next finds it.
        """
        if self._calls >= self._max_calls:
            raise TooManyCallsWait
        self._calls += 1
        try:
            return await self._publish(event, provenance)
        finally:
            self._calls -= 1

    async def _publish(self, event: DomainEvent, provenance: Provenance) -> bool:
        failure: LedgerUnavailable | None = None
        # The deadline cuts waiting short, never an attempt under way: a thread cannot be stopped.
        with anyio.move_on_after(self._patience.total_seconds()):
            while True:
                try:
                    return await anyio.to_thread.run_sync(
                        self._bus.publish, event, provenance, limiter=self._threads
                    )
                except LedgerUnavailable as error:
                    if failure is None:
                        _log.warning("webhook_held", error=type(error).__qualname__)
                    failure = error
                    await anyio.sleep(self._pause.total_seconds())
        raise failure or TooManyCallsWait
