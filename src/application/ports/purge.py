"""Removing what has been kept long enough."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event
from typing import Final, NamedTuple, Protocol

SHORTEST_RETENTION: Final = timedelta(days=1)
"""Kratos makes the attempts of one call within minutes: what it repeats is still known."""
MOST_CLOCK_DIFFERENCE: Final = timedelta(hours=1)
"""By a clock that is wrong everything might be old: apart by as much, nobody purges."""


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long events and attempts are kept; None is for ever.

    However old, what a delivery is outstanding of is kept, a dead letter too, and its attempts.
    """

    events: timedelta | None
    attempts: timedelta | None


class Removed(NamedTuple):
    """How many rows went, or would go."""

    events: int = 0
    attempts: int = 0

    def plus(self, other: "Removed") -> "Removed":
        """Both together."""
        return Removed(self.events + other.events, self.attempts + other.attempts)


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge did; it was not ``completed`` if it was stopped before the end."""

    removed: Removed
    took: timedelta
    completed: bool


@dataclass(frozen=True, slots=True)
class PastPurge:
    """A purge as the ledger remembers it; ``ended_at`` is None for one that runs, or was killed."""

    started_at: datetime
    ended_at: datetime | None
    removed: Removed


class AnotherPurge(Exception):
    """Another purge is at work: one at a time is enough."""


class ClocksDiffer(Exception):
    """The clocks of the database and of this process are too far apart to purge by either."""


class Purge(Protocol):
    """Removes rows in small steps, each a commit of its own, and rests between them.

    Every method raises LedgerUnavailable, ConcurrencyConflict, or the reason why the schema cannot
    be used; the first two also ClocksDiffer, before anything is removed.
    """

    def run(
        self, retention: Retention, stopped: Event, told: Callable[[Removed], None]
    ) -> PurgeReport:
        """Remove what is older, until done or stopped; each step tells the sum so far.

        Raises AnotherPurge when one is at work, or has taken over.
        """

    def preview(
        self, retention: Retention, stopped: Event, told: Callable[[Removed], None]
    ) -> PurgeReport:
        """Do the same without removing anything."""

    def is_due(self, every: timedelta) -> bool:
        """Whether no purge began since so long ago."""
