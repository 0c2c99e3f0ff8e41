"""How much of a backlog may be dispatched at a time, and how soon to look again."""

from datetime import timedelta
from typing import Final

FIRST_BATCHES: Final = 4
MOST_BATCHES: Final = 100
QUICK_PART_OF_LEASE: Final = 1 / 6
BUSY_SECONDS: Final = 0.01
"""The shortest between two dispatches to a consumer that has work: so its batches fill."""
LONGEST_PAUSE_SECONDS: Final = 0.2
"""The longest between two looks while something is due that there is no room for."""


class Window:
    """The most deliveries of one consumer that may be under lease.

    It doubles while the workers empty half of it in a sixth of a lease, so that twice as much will
    be finished in two thirds of one; and it shrinks when leases ran out before they got to it. So a
    backlog waits in the ledger, not in Redis. It is filled up when it is half empty: large claims
    are cheap, and in them what concerns one identity can share a batch.

    Times are a monotonic clock's seconds; ``leased`` is how many deliveries are under lease.
    """

    def __init__(self, batch_size: int, lease: timedelta) -> None:
        self._batch_size = batch_size
        self._quick = lease.total_seconds() * QUICK_PART_OF_LEASE
        self.size = FIRST_BATCHES * batch_size
        self._filled_at = 0.0
        self._filled = 0
        self._in_vain = 0
        self._closed_until = 0.0

    def is_open(self, now: float) -> bool:
        """Whether it may be worth to look how many are under lease; see ``pause``."""
        return now >= self._closed_until

    def room(self, leased: int, now: float) -> int:
        """How many more may be dispatched while more are due."""
        half_empty = leased <= self.size // 2
        if half_empty and self._filled >= self.size and now - self._filled_at < self._quick:
            self.size = min(2 * self.size, MOST_BATCHES * self._batch_size)
        return self.size - leased if half_empty else 0

    def dispatched(self, leased: int, now: float) -> None:
        """Take note of a dispatch, after which so many are under lease."""
        self._filled, self._filled_at, self._in_vain = leased, now, 0

    def leases_ran_out(self) -> None:
        """Dispatch less from now on."""
        self.size = max(self.size // 4, self._batch_size)

    def rests(self, now: float) -> float:
        """For how many seconds nothing more is dispatched while something is under lease."""
        return max(self._filled_at + BUSY_SECONDS - now, 0.0)

    def pause(self, leased: int, now: float) -> float:
        """In how many seconds it is worth to look again: when it will be half empty.

        Ever later, up to a bound, while the workers finish nothing.
        """
        finished, seconds = self._filled - leased, now - self._filled_at
        if finished > 0 and leased > self.size // 2:
            self._in_vain = 0
            due = seconds * (leased - self.size // 2) / finished
        else:
            self._in_vain += 1
            due = BUSY_SECONDS * 2 ** min(self._in_vain, 10)
        pause = min(max(due, BUSY_SECONDS), LONGEST_PAUSE_SECONDS)
        self._closed_until = now + pause
        return pause
