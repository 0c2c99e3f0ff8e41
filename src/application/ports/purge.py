"""Removing old events and attempts."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event
from typing import Final, NamedTuple, Protocol

SHORTEST_RETENTION: Final = timedelta(days=1)
"""Long enough to recognise a webhook that Kratos repeats, within minutes."""
MOST_CLOCK_DIFFERENCE: Final = timedelta(hours=1)
"""With clocks further apart nothing is purged: by a wrong clock everything may look old."""


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long events and attempts are kept; None is for ever.

    Events with a pending delivery or a dead letter are kept, with their attempts, however old.
    """

    events: timedelta | None
    attempts: timedelta | None


class Removed(NamedTuple):
    """How many rows were, or would be, removed."""

    events: int = 0
    attempts: int = 0

    def plus(self, other: "Removed") -> "Removed":
        """The sum of both."""
        return Removed(self.events + other.events, self.attempts + other.attempts)


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge removed; it is not ``completed`` if it was stopped before the end."""

    removed: Removed
    took: timedelta
    completed: bool


@dataclass(frozen=True, slots=True)
class PastPurge:
    """A recorded purge; ``ended_at`` is None while it runs, and if it was killed."""

    started_at: datetime
    ended_at: datetime | None
    removed: Removed


class AnotherPurge(Exception):
    """Another purge is running: only one runs at a time."""


class ClocksDiffer(Exception):
    """The clocks of the database and of this process are too far apart for a purge."""


class Purge(Protocol):
    """Removes rows in small steps, each in its own commit, with rests between them.

    Every method raises LedgerUnavailable, ConcurrencyConflict, or the reason why the schema cannot
    be used; the first two also ClocksDiffer, before anything is removed.
    """

    def run(
        self, retention: Retention, stopped: Event, progress: Callable[[Removed], None]
    ) -> PurgeReport:
        """Remove what is older, until done or stopped; ``progress`` gets the sum after each step.

        Raises AnotherPurge if another purge is running, or has taken over.
        """

    def preview(
        self, retention: Retention, stopped: Event, progress: Callable[[Removed], None]
    ) -> PurgeReport:
        """Count in the same way, without removing anything."""

    def is_due(self, every: timedelta) -> bool:
        """Whether no purge has begun for so long."""
