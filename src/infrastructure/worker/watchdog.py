"""The watchdog of a worker process: interrupts, cuts off and gives up consumers that overrun."""

import ctypes
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline.logging import describe, place_of, where
from kratos_sync.application.pipeline.retries import Lost, account_of_loss
from kratos_sync.application.ports.dead_letters import Failures
from kratos_sync.application.ports.unit_of_work import (
    PendingDelivery,
    TimeLimitExceeded,
    UnitOfWork,
)
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries

_INTERRUPTION_SECONDS: Final = 5.0
_MOMENT_SECONDS: Final = 0.0005


class Watched:
    """The Watch port: notes the delivery that its thread consumes, and lets it be interrupted.

    Every event passes through `begin` and `end`, so these do next to nothing. An interruption
    happens between a `begin` and its `end`: `end` waits for one that comes at the last moment, so
    it never strikes what the thread does afterwards.
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
        self.thread = threading.get_ident()
        self.delivery: PendingDelivery | None = None
        self.since = time.monotonic()
        self.is_cut = self.is_hung = self._is_alone = False
        self._in_flight = in_flight
        self._slot = in_flight.slot(consumer.name)
        self._interrupting = self._interrupted = False
        self._lock = threading.Lock()

    def opened(self, pending: Sequence[PendingDelivery]) -> None:
        """Note a delivery that is alone in its transaction, until that has ended."""
        self._is_alone = len(pending) == 1
        if self._is_alone:
            self._in_flight.take(self._slot, pending[0], time.time())
        else:
            self._in_flight.release(self._slot)

    def begin(self, delivery: PendingDelivery) -> None:
        """Note the delivery."""
        self.since, self.is_cut = time.monotonic(), False
        self._in_flight.take(self._slot, delivery, time.time())
        self.delivery = delivery

    def end(self) -> None:
        """Note that it is done."""
        self.delivery = None
        if not self._is_alone:
            self._in_flight.release(self._slot)
        self.since = time.monotonic()
        if self._interrupting:
            self._finish_interruption()

    def interrupt(self, delivery: PendingDelivery) -> bool:
        """Raise TimeLimitExceeded in the thread if it still consumes this delivery; once only.

        It strikes with the thread's next step in Python, which may never come. From the watchdog's
        thread only.
        """
        if self._interrupted:
            return False
        with self._lock:
            # In this order: who ends after our look sees that it has to wait for us.
            self._interrupting = True
            if self.delivery is not delivery:
                self._interrupting = False
                return False
            self._interrupted = True
            _raise_in(self.thread, TimeLimitExceeded)
        return True

    def close(self) -> None:
        """Note that the transaction has ended."""
        self._in_flight.release(self._slot)

    def settle(self, delivery: PendingDelivery | None) -> None:
        """Note that this delivery is accounted for, if the thread still consumes it."""
        if self.delivery is delivery:
            self._in_flight.release(self._slot)

    def _finish_interruption(self) -> None:
        try:
            until = time.monotonic() + _INTERRUPTION_SECONDS
            # Looked at and never taken: struck while we held it, we would never let go of it.
            while self._lock.locked() and time.monotonic() < until:
                time.sleep(_MOMENT_SECONDS)
            # Struck already, or not yet: then it never will.
            _raise_in(self.thread, None)
        except TimeLimitExceeded:
            pass
        interrupted, self._interrupted, self._interrupting = self._interrupted, False, False
        if interrupted:
            raise TimeLimitExceeded(f"took longer than {self.consumer.time_limit}")


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Let an exception be raised in a thread, or withdraw one that was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(error) if error is not None else None
    )


CUT_AFTER: Final = 1.0
"""Seconds after an interruption that did not help until the connection is cut,"""
HUNG_AFTER: Final = 4.0
"""and until the thread is given up."""
STATEMENTS_SECONDS: Final = 30.0
"""How much longer than two time limits the statements around the events may take altogether."""
GIVE_BACK_SECONDS: Final = 5.0
HALT_SECONDS: Final = 3.0
"""Who was kept from looking for longer was halted, with the whole process."""
TICK_SECONDS, IDLE_SECONDS = 0.1, 1.0
TIME_LIMIT_EXCEEDED: Final = "TimeLimitExceeded"

log = structlog.get_logger()


class Watchdog:
    """Looks at every thread that consumes, from a thread of its own.

    A consumer over its time limit is interrupted. If that does not help, its connection is cut,
    the attempt is recorded as failed, and the rest of its batch is given back. A thread that has
    not come back even then is given up, and `replace` is called: only a new process is rid of it.
    """

    def __init__(
        self,
        failures: Failures,
        claims: PostgresClaims,
        in_flight: InFlightDeliveries | None = None,
    ) -> None:
        self._failures = failures
        self._claims = claims
        self.in_flight = InFlightDeliveries() if in_flight is None else in_flight
        self._watched: dict[int, Watched] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._replace: Callable[[], None] = lambda: None

    def start(self, replace: Callable[[], None]) -> None:
        """Begin to look."""
        self._replace = replace
        # At once: whoever dies of its first delivery is known to have begun.
        self.in_flight.beat()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * IDLE_SECONDS)

    @contextmanager
    def over(
        self,
        consumer: type[Consumer[Any]],
        event_ids: Sequence[UUID],
        unit_of_work: UnitOfWork,
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
        """The threads that were given up."""
        return {watched.thread for watched in list(self._watched.values()) if watched.is_hung}

    def give_everything_back(self) -> None:
        """Cut off the threads at work, and release their deliveries without counting an attempt.

        What cannot be released within some seconds is due again when its lease runs out.
        """
        at_work = [watched for watched in list(self._watched.values()) if not watched.is_hung]
        threads = [
            threading.Thread(target=self._abandon, args=(watched,), daemon=True)
            for watched in at_work
        ]
        until = time.monotonic() + GIVE_BACK_SECONDS
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))

    def _abandon(self, watched: Watched) -> None:
        watched.unit_of_work.abandon()
        if not watched.is_cut:
            watched.settle(watched.delivery)
        self._give_back(watched)

    def _run(self) -> None:
        looked, worked = time.monotonic(), time.process_time()
        while not self._stopped.wait(TICK_SECONDS if self._watched else IDLE_SECONDS):
            self.in_flight.beat()
            away, busy = time.monotonic() - looked, time.process_time() - worked
            looked, worked = looked + away, worked + busy
            # No consumer's fault, unless one holds the interpreter: then the process is busy.
            halted = away if away > HALT_SECONDS and busy < away / 10 else 0.0
            for watched in list(self._watched.values()):
                watched.since += halted
                self._look_at(watched, time.monotonic())

    def _look_at(self, watched: Watched, now: float) -> None:
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
                # From a thread of its own: the database may let it wait, and others may hang too.
                threading.Thread(
                    target=self._cut_off, args=(watched, delivery), daemon=True
                ).start()
        elif taken > limit:
            watched.interrupt(delivery)

    def _cut_off(self, watched: Watched, delivery: PendingDelivery) -> None:
        consumer = watched.consumer
        frame = sys._current_frames().get(watched.thread)  # noqa: SLF001  # there is no other way
        stack = traceback.extract_stack(frame) if frame else traceback.StackSummary()
        log.error("consumer_overran", **describe(consumer, delivery), at=place_of(stack))
        watched.unit_of_work.abandon()
        began = datetime.now(UTC) - timedelta(seconds=time.monotonic() - watched.since)
        attempt = account_of_loss(
            consumer,
            Lost(consumer.name, delivery.event_id, delivery.attempt, began),
            TIME_LIMIT_EXCEEDED,
            f"took longer than {consumer.time_limit}",
            f"The thread's stack:\n{''.join(stack.format())}",
        )
        try:
            self._failures.record(attempt)
            watched.settle(delivery)
        except Exception as error:  # noqa: BLE001  # whatever it is, the rest is given back
            # It stays noted as in flight: the process after this one records it.
            log.warning("attempt_not_recorded", error=type(error).__name__, at=where(error))
        self._give_back(watched)

    def _give_back(self, watched: Watched) -> None:
        try:
            self._claims.release_when_unlocked(watched.consumer.name, watched.event_ids)
        except Exception as error:  # noqa: BLE001  # then their leases run out
            log.warning("not_given_back", error=type(error).__name__, at=where(error))
