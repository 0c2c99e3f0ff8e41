"""Doing many things at a bounded rate."""

import time
from collections.abc import Callable
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
