"""Where a look at the deliveries begins, so that it need not walk over what is long gone.

While any transaction holds an old snapshot, and until the next vacuum, the indexes keep an entry
for each delivery that was settled, and these lie before all that is owed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

MARGIN: Final = timedelta(seconds=1)
"""How far a floor stays below what is owed: a commit comes later than the time it writes."""
SLOW_SECONDS: Final = 0.015
"""A full look that is quicker costs nothing worth a floor."""
PART_OF_TIME: Final = 1 / 30
"""Full looks take no more of it, unless they are needed for LONGEST_SECONDS."""
LONGEST_SECONDS: Final = 10.0
"""The longest between two full looks, and so the longest that anything stays below a floor."""
FAILED_SECONDS: Final = 600.0
"""The same after a full look that did not come to an end."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The lowest due times that a look goes down to, by the database's clock; None is no floor.

    ``fresh`` is for deliveries that wait to be dispatched, ``leased`` for those under lease.
    """

    fresh: datetime | None = None
    leased: datetime | None = None


NO_FLOOR: Final = Floor()


class Floors:
    """What one relay knows of each consumer: a hint only, for speed.

    Something may come to lie below a floor (a transaction that took long, a clock set back). So
    every now and then a look has no floor, and finds whatever there is: the quicker such a full
    look was, the sooner comes the next. In a ledger without many dead rows all looks are full.
    """

    def __init__(self, lease: timedelta) -> None:
        self._lease = lease
        self._floors: dict[str, Floor] = {}
        self._full_look_at: dict[str, float] = {}
        self._was_slow: set[str] = set()

    def known(self, consumer: str) -> Floor:
        """The floor for a claim, as the last look found it."""
        return self._floors.get(consumer, NO_FLOOR)

    def for_survey(self, consumers: Iterable[str]) -> list[Floor]:
        """The floors for a look at these consumers, none for those whose full look is due."""
        now = monotonic()
        return [
            self.known(name) if now < self._full_look_at.get(name, now) else NO_FLOOR
            for name in consumers
        ]

    def learn(
        self, consumer: str, now: datetime, fresh: datetime | None, leased: datetime | None
    ) -> None:
        """Take note of the lowest due times that a look has found."""
        self._floors[consumer] = Floor(
            min(fresh or now, now) - MARGIN,
            min(leased or now + self._lease, now + self._lease) - MARGIN,
        )

    def full_look_took(self, consumers: Sequence[str], seconds: float) -> None:
        """Take note of what a full look has cost."""
        if seconds < SLOW_SECONDS:
            self._was_slow.difference_update(consumers)
            return
        # One slow look is followed by another: the machine may have been busy.
        at = monotonic() + min(seconds / PART_OF_TIME, LONGEST_SECONDS)
        self._full_look_at.update({name: at for name in consumers if name in self._was_slow})
        self._was_slow.update(consumers)

    def full_look_failed(self, consumers: Sequence[str], recent: datetime) -> None:
        """Go on with what is known, and where nothing is, with what became due ``recent``-ly."""
        self._full_look_at.update(dict.fromkeys(consumers, monotonic() + FAILED_SECONDS))
        for name in consumers:
            self._floors.setdefault(name, Floor(recent, recent))
