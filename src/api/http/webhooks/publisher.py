"""Publishes events for callers that can wait: Kratos drops a webhook after three attempts."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import structlog

from kratos_sync.application.ports.event_bus import (
    EventBus,
    LedgerUnavailable,
    Provenance,
    Publishable,
)

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class TooManyCallsWait(LedgerUnavailable):
    """The most calls allowed, or bytes of their bodies, wait for the ledger."""


class WaitingAborted(LedgerUnavailable):
    """This process shuts down: no call waits any longer."""


class RetryingPublisher:
    """Publishes, and holds calls while the ledger is unavailable, bounded in number and bytes."""

    def __init__(
        self,
        bus: EventBus,
        *,
        max_calls: int,
        max_bytes: int,
        max_wait: timedelta,
        pause: timedelta = timedelta(seconds=1),
    ) -> None:
        """Let `max_calls` calls be in progress at once, with `max_bytes` of bodies in all.

        A call starts no attempt later than `max_wait` after it arrived, and pauses between two.
        """
        self._bus = bus
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._max_wait = max_wait.total_seconds()
        self._pause = pause.total_seconds()
        self._calls: set[asyncio.Task[object] | None] = set()
        self._bytes = 0
        self.held_calls = 0
        """How many calls wait because the ledger is unavailable."""
        self._is_aborted = False
        self._turn = asyncio.Lock()
        self._error: str | None = None
        self._reason: str | None = None

    async def publish(self, event: Publishable, provenance: Provenance, size: int) -> bool:
        """Return whether the event was recorded now, and not before; raises LedgerUnavailable.

        All attempts publish the same event: if one committed without an answer, the next finds it.
        `size` is that of the call's body.
        """
        if len(self._calls) >= self._max_calls or self._bytes + size > self._max_bytes:
            raise TooManyCallsWait
        task = asyncio.current_task()
        self._calls.add(task)
        self._bytes += size
        deadline = time.monotonic() + self._max_wait
        try:
            return await self._publish(event, provenance, deadline)
        except asyncio.CancelledError:
            if task is None or not self._is_aborted:
                raise
            task.uncancel()
            raise WaitingAborted from None
        finally:
            self._calls.discard(task)
            self._bytes -= size

    def abort_waiting(self) -> None:
        """Make every call in progress raise WaitingAborted, and each later one that would wait.

        The event of an aborted call may be recorded all the same; then the next attempt finds it.
        """
        self._is_aborted = True
        for task in list(self._calls):
            if task is not None:
                task.cancel()

    async def _publish(self, event: Publishable, provenance: Provenance, deadline: float) -> bool:
        """Try until the event is recorded.

        While the ledger is unavailable, one call tries after each pause, by turns, and all others
        wait for its success: attempts of thousands every second would leave time for nothing else.
        """
        recorded = None if self._turn.locked() else await self._attempt(event, provenance)
        if recorded is not None:
            return recorded
        _log.warning("webhook_waiting", error=self._error, reason=self._reason)
        self.held_calls += 1
        try:
            return await self._publish_later(event, provenance, deadline)
        finally:
            self.held_calls -= 1

    async def _publish_later(
        self, event: Publishable, provenance: Provenance, deadline: float
    ) -> bool:
        recorded = None
        while recorded is None:
            async with self._turn_before(deadline):
                if self._error is not None:
                    await asyncio.sleep(self._pause)
                    recorded = await self._attempt(event, provenance)
                    continue
            # The ledger is back, and the next in turn need not wait for this attempt.
            recorded = await self._attempt(event, provenance)
        return recorded

    async def _attempt(self, event: Publishable, provenance: Provenance) -> bool | None:
        """Whether the event was recorded now, and not before; None if the ledger is unavailable."""
        try:
            recorded = await self._bus.publish(event, provenance)
        except LedgerUnavailable as error:
            # Attempts under way are not interrupted: they may be recorded the next moment.
            self._error = type(error.__cause__ or error).__qualname__
            self._reason = str(error)
            return None
        self._error = None
        return recorded

    @asynccontextmanager
    async def _turn_before(self, deadline: float) -> AsyncIterator[None]:
        """Hold the turn; raises LedgerUnavailable if the next attempt would be too late."""
        if self._is_aborted:
            raise WaitingAborted
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._turn.acquire()
        except TimeoutError:
            raise LedgerUnavailable(self._reason) from None
        try:
            if self._error is not None and deadline - time.monotonic() < self._pause:
                raise LedgerUnavailable(self._reason)
            yield
        finally:
            self._turn.release()
