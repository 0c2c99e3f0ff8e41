"""Runs async consumers: all events of a batch at once, on one event loop of the process."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic
from typing import Any, Final
from weakref import WeakKeyDictionary

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline.batch import FAILURES, Batch, Failure, Result, read_event
from kratos_sync.application.pipeline.outcomes import delivering, failure
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import (
    OtherLedgerUnavailable,
    PendingDelivery,
    TimeLimitExceeded,
)

GRACE_SECONDS: Final = 1.0
"""How long an event may take to end after it was cancelled or interrupted."""
BEAT_SECONDS: Final = 0.05
"""How often the event loop shows that it is not blocked."""


class EventLoop:
    """An event loop in a thread, which runs from the first use on until the process ends.

    All async consumers share it: the connections of their adapters belong to one loop.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._deliveries = WeakKeyDictionary[asyncio.Task[Any], PendingDelivery]()
        self._beat_at = 0.0
        self.thread = 0
        """The thread's identity."""
        self.blocked = 0.0
        """For how many seconds it was blocked, of all its time."""

    def start(self, coroutine: Coroutine[Any, Any, None]) -> "Future[None]":
        """Run a coroutine; returns at once."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_task_factory(self._new_task)
                thread = threading.Thread(target=self._run, name="async", daemon=True)
                thread.start()
                self.thread = thread.ident or 0
                self._beat_at = monotonic()
                asyncio.run_coroutine_threadsafe(self._beat(), self._loop)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def note(self, delivery: PendingDelivery) -> None:
        """Note that the present task, and those that it begins, consume this delivery."""
        if (task := asyncio.current_task()) is not None:
            self._deliveries[task] = delivery

    def blocking(self) -> PendingDelivery | None:
        """The delivery whose task runs at this moment, if one does."""
        task = asyncio.current_task(self._loop)
        return None if task is None else self._deliveries.get(task)

    @property
    def blocked_now(self) -> float:
        """For how many seconds something has not let anything else run."""
        return max(monotonic() - self._beat_at - BEAT_SECONDS, 0.0)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self.blocked += self.blocked_now
            self._beat_at = monotonic()

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        parent = asyncio.current_task(loop)
        if parent is not None and (delivery := self._deliveries.get(parent)) is not None:
            self._deliveries[task] = delivery
        return task

    def _run(self) -> None:
        assert self._loop is not None  # noqa: S101  # it was made before the thread
        while True:
            # A task's SystemExit ends it, and so may an interruption that comes a moment late.
            with suppress(BaseException):
                self._loop.run_forever()


EVENT_LOOP: Final = EventLoop()


class _Attempts:
    """The attempts of a batch: what each ended with, None if it succeeded."""

    def __init__(self, batch: Batch, consumer: Consumer[Any]) -> None:
        self._batch, self._consumer = batch, consumer
        self._limit = batch.consumer.time_limit.total_seconds()
        self._began, self._blocked_before = monotonic(), EVENT_LOOP.blocked
        self.errors: dict[PendingDelivery, BaseException | None] = {}

    @property
    def seconds(self) -> float:
        """How long it has run, without the time in which the loop was blocked."""
        blocked = EVENT_LOOP.blocked - self._blocked_before
        return monotonic() - self._began - blocked - EVENT_LOOP.blocked_now

    @property
    def is_overdue(self) -> bool:
        """Whether all events should have ended, cancelled if need be."""
        return self.seconds > self._limit + GRACE_SECONDS

    async def run(self) -> None:
        await asyncio.gather(*(self._run_one(each) for each in self._batch.deliveries))

    async def _run_one(self, delivery: PendingDelivery) -> None:
        EVENT_LOOP.note(delivery)
        with delivering(self._batch.consumer, delivery):
            timeout = asyncio.timeout(None)
            timer = asyncio.create_task(self._expire(timeout))
            try:
                async with timeout:
                    if (awaitable := self._consumer.consume(read_event(delivery))) is not None:
                        await awaitable
            except LedgerUnavailable as error:
                self.errors[delivery] = OtherLedgerUnavailable(str(error))
            except FAILURES as error:
                if timeout.expired():
                    overrun = TimeLimitExceeded(
                        f"took longer than {self._batch.consumer.time_limit}"
                    )
                    overrun.__cause__ = error
                    error = overrun
                self.errors[delivery] = error
            else:
                self.errors[delivery] = None
            finally:
                timer.cancel()
                self._batch.watch.ended(delivery)

    async def _expire(self, timeout: asyncio.Timeout) -> None:
        while (left := self._limit - self.seconds) > 0:
            await asyncio.sleep(left)
        timeout.reschedule(asyncio.get_running_loop().time())

    def result(self, *, is_blocked: bool = False) -> Result:
        """What became of them; if the loop is blocked, what has not ended counts no attempt."""
        batch, succeeded, failed, unprocessed = self._batch, [], list[Failure](), []
        for delivery in batch.deliveries:
            error = self.errors.get(delivery, _NOT_ENDED)
            if error is None:
                succeeded.append(delivery)
            elif is_blocked and error is _NOT_ENDED:
                unprocessed.append(delivery)
            else:
                failed.append(failure(batch.consumer, batch.started, delivery, error))
        return Result(batch.started, True, succeeded, failed, unprocessed)


_NOT_ENDED: Final = TimeLimitExceeded("did not end when it was cancelled")


def consume_at_once(batch: Batch, consumer: Consumer[Any]) -> Result:
    """Await the consumer with all opened events at once, each for at most its time limit.

    While something blocks the event loop, nobody's time passes. An event of this batch that blocks
    it for longer than its limit is interrupted; if even that does not help, this thread hangs
    too, and so the process is replaced.
    """
    attempts = _Attempts(batch, consumer)
    running = EVENT_LOOP.start(attempts.run())
    limit = batch.consumer.time_limit.total_seconds()
    is_interrupted = False
    while not attempts.is_overdue:
        with suppress(TimeoutError):
            running.result(BEAT_SECONDS if is_interrupted else min(limit, GRACE_SECONDS))
            return attempts.result()
        blocked, culprit = EVENT_LOOP.blocked_now, EVENT_LOOP.blocking()
        if blocked < limit:
            is_interrupted = False
        # By identity: the delivery of the same event to another consumer is equal.
        elif culprit is None or any(each is culprit for each in batch.deliveries):
            if not is_interrupted:
                batch.watch.interrupt_thread(EVENT_LOOP.thread)
                is_interrupted = True
            elif blocked > limit + GRACE_SECONDS:
                batch.watch.hang(culprit or batch.deliveries[0], EVENT_LOOP.thread)
                return attempts.result(is_blocked=True)
    result = attempts.result()
    running.cancel()
    return result
