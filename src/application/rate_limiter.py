"""Doing many things at a bounded rate."""

import time
from collections.abc import Callable
from threading import Lock
from typing import Final

STEPS_A_SECOND: Final = 4


class Pace:
    """So many a second at most, in steps that are evenly spaced.

    ``clock`` gives seconds that only grow; ``pause`` waits for so many, and may raise to end it.
    """

    def __init__(
        self,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.step = max(1, rate // STEPS_A_SECOND)
        """How many at a time."""
        self._rate = rate
        self._clock = clock
        self._pause = pause
        self._free_at = clock()

    def spend(self, number: int) -> None:
        """Return when that many have used up their time, and the next may be begun."""
        self._free_at = max(self._free_at, self._clock() - 1 / STEPS_A_SECOND) + number / self._rate
        self._pause(max(self._free_at - self._clock(), 0.0))


class TokenBucket:
    """Gives out ``rate`` tokens a second, and up to ``burst`` at once after a rest.

    ``clock`` gives seconds that only grow. Safe to use from many threads.
    """

    def __init__(
        self, rate: float, burst: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises ValueError for a rate that is not above 0, or a burst below 1."""
        if not (rate > 0 and burst >= 1):
            raise ValueError("a rate is above 0, and a burst 1 or more")
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = burst
        self._counted_at = clock()
        self._lock = Lock()

    def take(self, most: float) -> float | None:
        """Take a token; give the seconds until it may be used.

        None if that would be more than ``most`` seconds: nothing is taken then.
        """
        with self._lock:
            now = self._clock()
            earned = (now - self._counted_at) * self._rate
            self._tokens = min(self._burst, self._tokens + earned)
            self._counted_at = now
            wait = max(0.0, (1 - self._tokens) / self._rate)
            if wait > most:
                return None
            self._tokens -= 1
            return wait
