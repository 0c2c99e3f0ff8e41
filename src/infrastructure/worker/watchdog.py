"""The watchdog of a worker process: interrupts consumers that overrun, then cuts them off."""

import ctypes
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from kratos_sync.application.consumer import Consumer, is_async
from kratos_sync.application.errors import place_of, shape_of, summary
from kratos_sync.application.pipeline.outcomes import describe, lost_attempt
from kratos_sync.application.ports.dead_letters import Failures, Lost
from kratos_sync.application.ports.unit_of_work import (
    PendingDelivery,
    TimeLimitExceeded,
    UnitOfWork,
)
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.observability.observer import UNOBSERVED, Observer
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries

CUT_AFTER: Final = 1.0
"""Seconds after the time limit until the connection is cut,"""
HUNG_AFTER: Final = 4.0
"""and until the thread counts as hung."""
STATEMENTS_SECONDS: Final = 30.0
"""How much longer than two time limits the statements around the events may take altogether."""
RELEASE_SECONDS: Final = 5.0
HALT_SECONDS: Final = 3.0
"""A longer pause between two checks means that the whole process was halted."""
TICK_SECONDS, IDLE_SECONDS = 0.1, 1.0

INTERRUPTION_SECONDS: Final = 5.0
MOMENT_SECONDS: Final = 0.0005
LOOP: Final = "worker"

log = structlog.get_logger()


class Watched:
    """The Watch port: notes the delivery that its thread consumes, and can interrupt it.

    `begin` and `end` run for every event and are cheap. An interruption happens between a `begin`
    and its `end`, never later: `end` waits for one that is just being raised.
    """

    def __init__(
        self,
        consumer: type[Consumer[Any]],
        event_ids: Sequence[UUID],
        unit_of_work: UnitOfWork,
        in_flight: InFlightDeliveries,
    ) -> None:
        self.consumer = consumer
        self.event_ids = event_ids
        self.unit_of_work = unit_of_work
        self.thread = self.consuming_thread = threading.get_ident()
        self.delivery: PendingDelivery | None = None
        self.since = time.monotonic()
        self.is_cut = self.is_hung = self._is_alone = False
        self._in_flight = in_flight
        self._slot = in_flight.slot(consumer.name)
        self._at_once: dict[UUID, int] = {}
        self._interrupting = self._interrupted = False
        self._lock = threading.Lock()

    def opened(self, pending: Sequence[PendingDelivery]) -> None:
        self._is_alone = len(pending) == 1
        if self._is_alone:
            self._in_flight.take(self._slot, pending[0], time.time())
        else:
            self._in_flight.release(self._slot)
            if is_async(self.consumer):
                self._at_once = self._in_flight.take_all(self.consumer.name, pending, time.time())

    def ended(self, delivery: PendingDelivery) -> None:
        if (slot := self._at_once.pop(delivery.event_id, None)) is not None:
            self._in_flight.release_all([slot])

    def begin(self, delivery: PendingDelivery) -> None:
        self.since, self.is_cut = time.monotonic(), False
        self._in_flight.take(self._slot, delivery, time.time())
        self.delivery = delivery

    def end(self) -> None:
        self.delivery = None
        if not self._is_alone:
            self._in_flight.release(self._slot)
        self.since = time.monotonic()
        if self._interrupting:
            self._finish_interruption()

    def interrupt(self, delivery: PendingDelivery) -> bool:
        """Raise TimeLimitExceeded in the thread if it still consumes this delivery; once only.

        It is raised at the thread's next step in Python, which may never come. Only the watchdog's
        thread may call this.
        """
        if self._interrupted:
            return False
        with self._lock:
            # In this order: an `end` that comes after the check waits for the lock.
            self._interrupting = True
            if self.delivery is not delivery:
                self._interrupting = False
                return False
            self._interrupted = True
            _raise_in(self.thread, TimeLimitExceeded)
        return True

    def hang(self, delivery: PendingDelivery, thread: int) -> None:
        self.consuming_thread = thread
        self.begin(delivery)
        while True:
            with suppress(TimeLimitExceeded):
                threading.Event().wait(IDLE_SECONDS)

    def interrupt_thread(self, thread: int) -> None:
        _raise_in(thread, TimeLimitExceeded)

    def close(self) -> None:
        """Note that the transaction has ended."""
        self._in_flight.release(self._slot)
        self._release_at_once()

    def settle(self, delivery: PendingDelivery | None) -> None:
        """Note that this delivery's attempt is recorded, if the thread still consumes it."""
        if self.delivery is delivery:
            self._in_flight.release(self._slot)
        self._release_at_once()

    def _release_at_once(self) -> None:
        slots, self._at_once = self._at_once, {}
        self._in_flight.release_all(slots.values())

    def _finish_interruption(self) -> None:
        try:
            until = time.monotonic() + INTERRUPTION_SECONDS
            # Checked and never taken: interrupted while it held the lock, the thread would keep it.
            while self._lock.locked() and time.monotonic() < until:
                time.sleep(MOMENT_SECONDS)
            # From here on an interruption that was not raised yet never will be.
            _raise_in(self.thread, None)
        except TimeLimitExceeded:
            pass
        interrupted, self._interrupted, self._interrupting = self._interrupted, False, False
        if interrupted:
            raise TimeLimitExceeded(f"took longer than {self.consumer.time_limit}")


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have an exception raised in a thread, or withdraw one that was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(error) if error is not None else None
    )


class Watchdog:
    """Checks every consuming thread, from a thread of its own.

    A consumer over its time limit is interrupted. If that does not help, its connection is cut, the
    attempt is recorded as failed, and the rest of its batch is released. If the thread hangs even
    then, `replace` is called: only a new process helps.
    """

    def __init__(
        self,
        failures: Failures,
        claims: PostgresClaims,
        in_flight: InFlightDeliveries | None = None,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._observer = observer
        self._failures = failures
        self._claims = claims
        self.in_flight = InFlightDeliveries() if in_flight is None else in_flight
        self._watched: dict[int, Watched] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._replace: Callable[[], None] = lambda: None

    def start(self, replace: Callable[[], None]) -> None:
        """Start watching; `replace` asks for another process in place of this one."""
        self._replace = replace
        # At once: a process that dies of its first delivery has begun to work.
        self.in_flight.beat()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * IDLE_SECONDS)

    @contextmanager
    def over(
        self, consumer: type[Consumer[Any]], event_ids: Sequence[UUID], unit_of_work: UnitOfWork
    ) -> Iterator[Watched]:
        """Watch this thread while it consumes a batch."""
        watched = Watched(consumer, event_ids, unit_of_work, self.in_flight)
        self._watched[watched.thread] = watched
        try:
            yield watched
        finally:
            self._watched.pop(watched.thread, None)
            watched.close()

    @property
    def hung_threads(self) -> set[int]:
        return {watched.thread for watched in list(self._watched.values()) if watched.is_hung}

    def busy_threads(self) -> int:
        """How many threads process a batch."""
        return len(self._watched)

    def release_everything(self) -> None:
        """Cut off all busy threads, and release their deliveries without counting an attempt.

        What cannot be released within some seconds is due again when its lease runs out.
        """
        threads = [
            threading.Thread(target=self._abandon, args=(watched,), daemon=True)
            for watched in list(self._watched.values())
            if not watched.is_hung
        ]
        until = time.monotonic() + RELEASE_SECONDS
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))

    def _abandon(self, watched: Watched) -> None:
        watched.unit_of_work.abandon()
        if not watched.is_cut:
            watched.settle(watched.delivery)
        self._release(watched)

    def _run(self) -> None:
        looked, worked = time.monotonic(), time.process_time()
        while not self._stopped.wait(TICK_SECONDS if self._watched else IDLE_SECONDS):
            self.in_flight.beat()
            self._observer.turned(LOOP)
            away, busy = time.monotonic() - looked, time.process_time() - worked
            looked, worked = looked + away, worked + busy
            # No consumer's time, unless one holds the interpreter: then the process is busy.
            halted = away if away > HALT_SECONDS and busy < away / 10 else 0.0
            for watched in list(self._watched.values()):
                watched.since += halted
                self._check(watched, time.monotonic())

    def _check(self, watched: Watched, now: float) -> None:
        delivery, taken = watched.delivery, now - watched.since
        limit = watched.consumer.time_limit.total_seconds()
        if delivery is None:
            if taken > 2 * limit + STATEMENTS_SECONDS:
                log.warning("connection_cut", consumer=watched.consumer.name)
                watched.since = now
                watched.unit_of_work.abandon()
        elif taken > limit + HUNG_AFTER and watched.is_cut:
            if not watched.is_hung:
                watched.is_hung = True
                log.error("consumer_hangs", **describe(watched.consumer, delivery))
                self._replace()
        elif taken > limit + CUT_AFTER:
            if not watched.is_cut:
                watched.is_cut = True
                # On a thread of its own: the database may be slow, and other consumers may hang.
                cut_off = threading.Thread(target=self._cut_off, args=(watched, delivery))
                cut_off.daemon = True
                cut_off.start()
        elif taken > limit:
            watched.interrupt(delivery)

    def _cut_off(self, watched: Watched, delivery: PendingDelivery) -> None:
        consumer = watched.consumer
        frame = sys._current_frames().get(watched.consuming_thread)  # noqa: SLF001  # there is no other way
        stack = traceback.extract_stack(frame) if frame else traceback.StackSummary()
        log.error("consumer_overran", **describe(consumer, delivery), at=place_of(stack, consumer))
        watched.unit_of_work.abandon()
        began = datetime.now(UTC) - timedelta(seconds=time.monotonic() - watched.since)
        lost = Lost(consumer.name, delivery.event_id, delivery.attempt, began)
        overrun = TimeLimitExceeded(f"took longer than {consumer.time_limit}")
        written = f"The thread's stack:\n{''.join(stack.format())}"
        try:
            attempt = lost_attempt(
                consumer,
                lost,
                TimeLimitExceeded.__name__,
                str(overrun),
                shape=shape_of(overrun),
                stack=written,
            )
            self._failures.record(attempt)
            self._observer.attempt_lost(attempt)
            watched.settle(delivery)
        except Exception as error:  # noqa: BLE001  # whatever it is, the rest is released
            # It stays noted as in flight: the process after this one records it.
            log.warning("attempt_not_recorded", **summary(error))
        self._release(watched)

    def _release(self, watched: Watched) -> None:
        try:
            self._claims.release_when_unlocked(watched.consumer.name, watched.event_ids)
        except Exception as error:  # noqa: BLE001  # then their leases run out
            log.warning("not_released", **summary(error))
