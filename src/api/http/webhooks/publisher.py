"""Publishes events for callers that can wait: Kratos drops a webhook after three attempts."""

import asyncio
import time
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
    """As many calls, or bytes of their bodies, wait for the ledger as may."""


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
        self._is_aborted = False
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._error: str | None = None
        self._reason: str | None = None
        self._next_attempt: asyncio.TimerHandle | None = None

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
        is_logged = False
        must_wait = bool(self._waiting)
        while True:
            if must_wait:
                if not is_logged:
                    _log.warning("webhook_waiting", error=self._error, reason=self._reason)
                is_logged = True
                await self._wait_for_turn(deadline)
            try:
                recorded = await self._bus.publish(event, provenance)
            except LedgerUnavailable as error:
                # Attempts under way are not interrupted: they may be recorded the next moment.
                self._error = type(error.__cause__ or error).__qualname__
                self._reason = str(error)
                must_wait = True
            except BaseException:
                self._schedule_attempt()
                raise
            else:
                if self._waiting:
                    self._resume(len(self._waiting))
                return recorded

    async def _wait_for_turn(self, deadline: float) -> None:
        """Return when this call may try again; raises LedgerUnavailable at its deadline.

        While the ledger is unavailable, one call tries after each pause, by turns, and all others
        wait for its success: attempts of thousands every second would leave time for nothing else.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        self._schedule_attempt()
        left = deadline - time.monotonic()
        try:
            if self._is_aborted:
                raise WaitingAborted
            if left < self._pause:
                raise LedgerUnavailable(self._reason)
            try:
                async with asyncio.timeout(left):
                    await turn
            except BaseException:
                # Its turn may have come at this very moment, and is another's now.
                self._schedule_attempt()
                raise
        except TimeoutError:
            raise LedgerUnavailable(self._reason) from None
        finally:
            self._waiting.pop(turn, None)
            if not self._waiting and self._next_attempt is not None:
                self._next_attempt.cancel()
                self._next_attempt = None

    def _schedule_attempt(self) -> None:
        if self._waiting and self._next_attempt is None:
            later = asyncio.get_running_loop().call_later
            self._next_attempt = later(self._pause, self._resume_one)

    def _resume_one(self) -> None:
        self._next_attempt = None
        self._resume(1)

    def _resume(self, count: int) -> None:
        for turn in list(self._waiting)[:count]:
            if not turn.done():
                turn.set_result(None)
            del self._waiting[turn]
