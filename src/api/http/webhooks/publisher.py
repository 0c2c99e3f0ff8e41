"""Publishing for callers that can wait: what Kratos gives up on after three attempts is lost."""

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


class NobodyWaits(LedgerUnavailable):
    """This process stops: nothing waits any longer."""


class RetryingPublisher:
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
        self._calls: set[asyncio.Task[object] | None] = set()
        self._bytes = 0
        self._hurried = False
        self._held: dict[asyncio.Future[None], None] = {}
        self._error: str | None = None
        self._why: str | None = None
        self._next_try: asyncio.TimerHandle | None = None

    async def publish(self, event: Publishable, provenance: Provenance, size: int) -> bool:
        """Whether the event was recorded now, and not before; raises LedgerUnavailable.

        The attempts are of one event: had one committed and not been heard of, the next finds it.
        `size` is that of the call's body.
        """
        if len(self._calls) >= self._max_calls or self._bytes + size > self._max_bytes:
            raise TooManyCallsWait
        task = asyncio.current_task()
        self._calls.add(task)
        self._bytes += size
        until = time.monotonic() + self._patience
        try:
            return await self._publish(event, provenance, until)
        except asyncio.CancelledError:
            if task is None or not self._hurried:
                raise
            task.uncancel()
            raise NobodyWaits from None
        finally:
            self._calls.discard(task)
            self._bytes -= size

    def abort_waiting(self) -> None:
        """Let every call under way, and each that comes, raise NobodyWaits as soon as it waits.

        What one of them says may be recorded all the same; then the next attempt finds it.
        """
        self._hurried = True
        for task in list(self._calls):
            if task is not None:
                task.cancel()

    async def _publish(self, event: Publishable, provenance: Provenance, until: float) -> bool:
        is_held = False
        has_to_wait = bool(self._held)
        while True:
            if has_to_wait:
                if not is_held:
                    _log.warning("webhook_held", error=self._error, reason=self._why)
                is_held = True
                await self._turn(until)
            try:
                recorded = await self._bus.publish(event, provenance)
            except LedgerUnavailable as error:
                # An attempt under way is not cut short: it may be recorded the next moment.
                self._error = type(error.__cause__ or error).__qualname__
                self._why = str(error)
                has_to_wait = True
            except BaseException:
                self._let_one_try_soon()
                raise
            else:
                if self._held:
                    self._let_try(len(self._held))
                return recorded

    async def _turn(self, until: float) -> None:
        """Return when a call may try; raises LedgerUnavailable when its patience ends.

        While the ledger is away one call tries after each pause, by turns; the others wait to hear
        of its success. Were each of thousands to try every second, nothing else would be done.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held[turn] = None
        self._let_one_try_soon()
        left = until - time.monotonic()
        try:
            if self._hurried:
                raise NobodyWaits
            if left < self._pause:
                raise LedgerUnavailable(self._why)
            try:
                async with asyncio.timeout(left):
                    await turn
            except BaseException:
                # Its turn may have come at this very moment, and is another's now.
                self._let_one_try_soon()
                raise
        except TimeoutError:
            raise LedgerUnavailable(self._why) from None
        finally:
            self._held.pop(turn, None)
            if not self._held and self._next_try is not None:
                self._next_try.cancel()
                self._next_try = None

    def _let_one_try_soon(self) -> None:
        if self._held and self._next_try is None:
            later = asyncio.get_running_loop().call_later
            self._next_try = later(self._pause, self._let_one_try)

    def _let_one_try(self) -> None:
        self._next_try = None
        self._let_try(1)

    def _let_try(self, count: int) -> None:
        for turn in list(self._held)[:count]:
            if not turn.done():
                turn.set_result(None)
            del self._held[turn]
