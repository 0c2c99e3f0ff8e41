"""Bounds how many things are done in a second."""

import time
from collections.abc import Callable
from math import inf
from threading import Lock
from typing import Final

STEPS_A_SECOND: Final = 4


class RateLimiter:
    """Lets ``rate`` things a second through, and up to ``burst`` at once after a rest.

    ``clock`` gives seconds that only grow; ``pause`` waits for so many, and may raise to end the
    wait. Safe to use from many threads.
    """

    def __init__(
        self,
        rate: float,
        burst: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises ValueError for a rate that is not above 0, or a burst below 1."""
        if not (rate > 0 and burst >= 1):
            raise ValueError("a rate is above 0, and a burst 1 or more")
        self.step = max(1, int(rate // STEPS_A_SECOND))
        """A batch that takes a quarter of a second, for whoever works in batches."""
        self._rate = rate
        self._burst_seconds = burst / rate
        self._clock = clock
        self._pause = pause
        self._used_until = clock() - self._burst_seconds
        self._lock = Lock()

    def take(self, most: float) -> float | None:
        """Reserve one turn, and give the seconds until it comes.

        None if that would be more than ``most`` seconds: nothing is reserved then.
        """
        return self._reserve(1, self._burst_seconds, most)

    def spend(self, number: int) -> None:
        """Wait until the time that this many things may take has passed, after they were done."""
        self._pause(self._reserve(number, 1 / STEPS_A_SECOND, inf) or 0.0)

    def _reserve(self, number: int, unused: float, most: float) -> float | None:
        """Use the next free time; of the time that passed unused, only so many seconds count."""
        with self._lock:
            now = self._clock()
            until = max(self._used_until, now - unused) + number / self._rate
            wait = max(until - now, 0.0)
            if wait > most:
                return None
            self._used_until = until
            return wait
