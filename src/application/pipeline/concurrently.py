"""Runs async consumers: all events of a batch at once, on one event loop of the process."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline.batch import FAILURES, Batch, Failure, Result
from kratos_sync.application.pipeline.logging import delivering
from kratos_sync.application.pipeline.reading import read_event
from kratos_sync.application.pipeline.retries import failure
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import (
    OtherLedgerUnavailable,
    PendingDelivery,
    TimeLimitExceeded,
)

GRACE_SECONDS: Final = 1.0
"""How much longer than its time limit a batch may take until the loop counts as blocked."""


class EventLoop:
    """An event loop in a thread, which runs from the first use on until the process ends.

    All async consumers share it: the connections of their adapters belong to one loop.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._deliveries = WeakKeyDictionary[asyncio.Task[Any], PendingDelivery]()
        self.thread = 0
        """The thread's identity."""

    def start(self, coroutine: Coroutine[Any, Any, None]) -> "Future[None]":
        """Run a coroutine; returns at once."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_task_factory(self._new_task)
                thread = threading.Thread(target=self._run, name="async", daemon=True)
                thread.start()
                self.thread = thread.ident or 0
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def note(self, delivery: PendingDelivery) -> None:
        """Note that the present task, and those that it begins, consume this delivery."""
        if (task := asyncio.current_task()) is not None:
            self._deliveries[task] = delivery

    def blocking(self) -> PendingDelivery | None:
        """The delivery whose task runs at this moment, if one does."""
        task = asyncio.current_task(self._loop)
        return None if task is None else self._deliveries.get(task)

    def is_blocked(self) -> bool:
        """Whether something that does not await keeps it from running anything else."""
        answered = threading.Event()
        assert self._loop is not None  # noqa: S101  # it has started something
        self._loop.call_soon_threadsafe(answered.set)
        return not answered.wait(GRACE_SECONDS)

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        parent = asyncio.current_task(loop)
        if parent is not None and (delivery := self._deliveries.get(parent)) is not None:
            self._deliveries[task] = delivery
        return task

    def _run(self) -> None:
        assert self._loop is not None  # noqa: S101
        while True:
            # An interruption may come a moment after what was to be interrupted.
            with suppress(TimeLimitExceeded):
                self._loop.run_forever()


EVENT_LOOP: Final = EventLoop()


_NOT_ENDED: Final = TimeLimitExceeded("did not end when it was cancelled")


class _Attempts:
    """The attempts of a batch: what each ended with, None if it succeeded."""

    def __init__(self, batch: Batch, consumer: Consumer[Any]) -> None:
        self._batch, self._consumer = batch, consumer
        self.errors: dict[PendingDelivery, BaseException | None] = {}
        self.timed_out: set[PendingDelivery] = set()

    async def run(self) -> None:
        await asyncio.gather(*(self._run_one(each) for each in self._batch.deliveries))

    async def _run_one(self, delivery: PendingDelivery) -> None:
        limit = self._batch.consumer.time_limit
        EVENT_LOOP.note(delivery)
        with delivering(self._batch.consumer, delivery):
            try:
                async with asyncio.timeout(limit.total_seconds()) as timeout:
                    if (awaitable := self._consumer.consume(read_event(delivery))) is not None:
                        await awaitable
            except LedgerUnavailable as error:
                self.errors[delivery] = OtherLedgerUnavailable(str(error))
            except FAILURES as error:
                if timeout.expired():
                    self.timed_out.add(delivery)
                    overrun = TimeLimitExceeded(f"took longer than {limit}")
                    overrun.__cause__ = error
                    error = overrun
                self.errors[delivery] = error
            else:
                self.errors[delivery] = None

    def result(self, *, was_blocked: bool) -> Result:
        """What became of them; no attempt counts for what was kept from running."""
        batch, succeeded, failed, unprocessed = self._batch, [], list[Failure](), []
        for delivery in batch.deliveries:
            error = self.errors.get(delivery, _NOT_ENDED)
            if error is None:
                succeeded.append(delivery)
            elif was_blocked and (error is _NOT_ENDED or delivery in self.timed_out):
                unprocessed.append(delivery)
            else:
                failed.append(failure(batch.consumer, batch.started, delivery, error))
        return Result(batch.started, True, succeeded, failed, unprocessed)


def consume_at_once(batch: Batch) -> Result:
    """Await the consumer with all opened events at once, each for at most its time limit.

    An event that blocks the event loop is interrupted, and the others count no attempt; if even
    that does not help, its batch's thread hangs too, and so the process is replaced.
    """
    attempts = _Attempts(batch, batch.unit_of_work.consumer(batch.consumer))
    running = EVENT_LOOP.start(attempts.run())
    limit = batch.consumer.time_limit.total_seconds()
    try:
        running.result(limit + GRACE_SECONDS)
    except TimeoutError:
        was_blocked = EVENT_LOOP.is_blocked()
        if was_blocked:
            batch.watch.interrupt_thread(EVENT_LOOP.thread)
            if EVENT_LOOP.is_blocked():
                # What blocks it and is no task may be anybody's.
                culprit = EVENT_LOOP.blocking() or batch.deliveries[0]
                if culprit in batch.deliveries:
                    _hang(batch, culprit, 2 * limit)
        result = attempts.result(was_blocked=was_blocked)
        running.cancel()
        return result
    return attempts.result(was_blocked=False)


def _hang(batch: Batch, culprit: PendingDelivery, seconds: float) -> None:
    batch.watch.begin(culprit)
    threading.Event().wait(seconds + 10 * GRACE_SECONDS)
    batch.watch.end()
