"""The watch on one thread that consumes one batch."""

import ctypes
import threading
import time
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from application.consumer import Consumer
from application.ports.unit_of_work import Owed, UnitOfWork
from application.ports.watch import TimeLimitExceeded
from infrastructure.bus.hands import Hands

_PATIENCE_SECONDS: Final = 5.0
_MOMENT_SECONDS: Final = 0.0005


class Watched:
    """The Watch port: notes what its thread consumes, and lets the watchdog interrupt that.

    Every event passes through `begin` and `end`, so these do next to nothing. Whatever the
    watchdog does happens between a `begin` and its `end`: an interruption that comes at the last
    moment is waited for in `end`, and never strikes what the thread does afterwards.
    """

    def __init__(
        self,
        consumer: type[Consumer[Any]],
        event_ids: Sequence[UUID],
        unit_of_work: UnitOfWork,
        hands: Hands,
    ) -> None:
        self.consumer = consumer
        self.event_ids = event_ids
        self.unit_of_work = unit_of_work
        self.thread = threading.get_ident()
        self.delivery: Owed | None = None
        self.since = time.monotonic()
        self.is_cut = self.is_hung = self._is_alone = False
        self._hands = hands
        self._slot = hands.slot(consumer.name)
        self._interrupting = self._interrupted = False
        self._lock = threading.Lock()

    def opened(self, owed: Sequence[Owed]) -> None:
        """Note a delivery that is alone in its transaction, until that has ended."""
        self._is_alone = len(owed) == 1
        if self._is_alone:
            self._hands.take(self._slot, owed[0], time.time())
        else:
            self._hands.let_go(self._slot)

    def begin(self, delivery: Owed) -> None:
        """Note the delivery."""
        self.since, self.is_cut = time.monotonic(), False
        self._hands.take(self._slot, delivery, time.time())
        self.delivery = delivery

    def end(self) -> None:
        """Note that it is done."""
        self.delivery = None
        if not self._is_alone:
            self._hands.let_go(self._slot)
        self.since = time.monotonic()
        if self._interrupting:
            self._finish_interruption()

    def interrupt(self, delivery: Owed) -> bool:
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
        """Let go of what was noted: the transaction has ended."""
        self._hands.let_go(self._slot)

    def forget(self, delivery: Owed | None) -> None:
        """Let go of this delivery if it is still in hand: it is accounted for."""
        if self.delivery is delivery:
            self._hands.let_go(self._slot)

    def _finish_interruption(self) -> None:
        try:
            until = time.monotonic() + _PATIENCE_SECONDS
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
