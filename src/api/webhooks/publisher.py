"""Publishing for callers that can wait: what Kratos gives up on after three attempts is lost."""

import asyncio
import time
from datetime import timedelta
from typing import Final

import structlog

from application.ports.event_bus import EventBus, LedgerUnavailable, Provenance, Publishable

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class TooManyCallsWait(LedgerUnavailable):
    """As many calls, or bytes of their bodies, wait for the ledger as may."""


class PatientPublisher:
    """Publishes, and holds calls while the ledger is away, bounded in number and in bytes."""

    def __init__(
        self,
        bus: EventBus,
        *,
        max_calls: int,
        max_bytes: int,
        patience: timedelta,
        pause: timedelta = timedelta(seconds=1),
    ) -> None:
        """Let `max_calls` calls be under way at once, with `max_bytes` in all of their bodies.

        A call begins no attempt later than `patience` after it came, and pauses between two.
        """
        self._bus = bus
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._patience = patience.total_seconds()
        self._pause = pause.total_seconds()
        self._calls = 0
        self._bytes = 0

    async def publish(self, event: Publishable, provenance: Provenance, size: int) -> bool:
        """Whether the event was recorded now, and not before; raises LedgerUnavailable.

        The attempts are of one event: had one committed and not been heard of, the next finds it.
        `size` is that of the call's body.
        """
        if self._calls >= self._max_calls or self._bytes + size > self._max_bytes:
            raise TooManyCallsWait
        self._calls += 1
        self._bytes += size
        until = time.monotonic() + self._patience
        try:
            return await self._publish(event, provenance, until)
        finally:
            self._calls -= 1
            self._bytes -= size

    async def _publish(self, event: Publishable, provenance: Provenance, until: float) -> bool:
        is_held = False
        while True:
            try:
                return await self._bus.publish(event, provenance)
            except LedgerUnavailable as error:
                if not is_held:
                    _log.warning("webhook_held", error=type(error).__qualname__)
                is_held = True
                if time.monotonic() + self._pause > until:
                    raise
            # An attempt under way is not cut short: it may be recorded the next moment.
            await asyncio.sleep(self._pause)
