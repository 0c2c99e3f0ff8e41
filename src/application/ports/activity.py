"""What happens at the moment: events that are recorded, and attempts that are made."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol
from uuid import UUID

OUTCOMES: Final = (
    "succeeded",
    "failed",
    "gave_up",
    "postponed",
    "retried",
    "discarded",
    "erased",
)
"""What the ledger logs of a delivery; the last three are decisions of an operator."""
FAILURES: Final = ("failed", "gave_up")


class Position(NamedTuple):
    """How far the ledger has come: the time by the database's clock, and the newest attempt."""

    at: datetime
    attempt: int


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """A recorded event, without anything of the person but the id."""

    id: UUID
    name: str
    identity_id: UUID
    source: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class SeenAttempt:
    """An attempt or an operator's decision; of its error the type alone.

    ``event`` and ``identity_id`` are None where the event was removed.
    """

    id: int
    event_id: UUID
    event: str | None
    identity_id: UUID | None
    consumer: str
    number: int
    outcome: str
    ended_at: datetime
    duration: timedelta
    error_type: str | None


@dataclass(frozen=True, slots=True)
class ActivityFilter:
    """Which events and attempts: those that match every field that is set."""

    consumer: str | None = None
    event: str | None = None
    outcomes: Collection[str] = ()

    @property
    def has_events(self) -> bool:
        """Whether events are wanted too: they have no consumer and no outcome."""
        return self.consumer is None and not self.outcomes


class Counted(NamedTuple):
    """How many events were recorded, and attempts made by consumer and outcome."""

    events: int
    attempts: Mapping[str, Mapping[str, int]]


class Activity(Protocol):
    """Reads the newest part of the ledger; each method reads a bounded number of rows.

    Each raises LedgerUnavailable, or the reason why the schema cannot be read.
    """

    def position(self) -> Position:
        """Return how far the ledger has come."""

    def counted(self, after: Position, until: Position) -> Counted:
        """Count what happened between two positions."""

    def events(self, after: datetime, wanted: ActivityFilter, most: int) -> list[SeenEvent]:
        """Return the newest events that match and were recorded later, the newest first."""

    def attempts(self, after: int, wanted: ActivityFilter, most: int) -> list[SeenAttempt]:
        """Return the newest attempts that match and have greater ids, the newest first."""
