"""History as it is recorded, to be delivered once more."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class EventRange:
    """The events that one consumer is to get again.

    They have one of the ``names``, and were recorded from ``since`` on and before ``until``; with
    an ``identity_id`` only those about it.
    """

    consumer: str
    names: tuple[str, ...]
    since: datetime
    until: datetime
    identity_id: UUID | None = None


class Position(NamedTuple):
    """An event's place in the log, whose order this is."""

    recorded_at: datetime
    event_id: UUID


class Step(NamedTuple):
    """What one step did: events owed again, and those left because they were owed, or are dead.

    ``position`` is where the next step goes on; None when there is nothing after it.
    """

    replayed: int
    left: int
    position: Position | None


class RecordedEvents(Protocol):
    """The log of events.

    Every method raises LedgerUnavailable, ConcurrencyConflict, or the reason why the schema cannot
    be used.
    """

    def now(self) -> datetime:
        """Give the time by the database's clock."""

    def count(self, stretch: EventRange) -> int:
        """Count the events of a stretch."""

    def in_flight(self, consumer: str, most: int) -> int:
        """Count the consumer's deliveries that are due or dispatched, up to so many."""

    def redeliver(self, stretch: EventRange, after: Position | None, most: int) -> Step:
        """Owe the consumer the next events after a position, at most so many, in one commit.

        A delivery that is there already, outstanding or dead, is left as it is.
        """
