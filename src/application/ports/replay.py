"""Recorded events, to be delivered once more."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class EventRange:
    """The events that one consumer is to get again.

    Those with one of the ``names`` that were recorded from ``since`` on and before ``until``; with
    an ``identity_id`` only those about it, and only those of the ``source``, the label of a
    ``hook``, and the ``trace_id`` (32 hexadecimal digits) that are given.
    """

    consumer: str
    names: tuple[str, ...]
    since: datetime
    until: datetime
    identity_id: UUID | None = None
    source: str | None = None
    hook: str | None = None
    trace_id: str | None = None


class Position(NamedTuple):
    """The place of an event in the log, which is ordered by it."""

    recorded_at: datetime
    event_id: UUID


BEGIN: Final = Position(datetime.min.replace(tzinfo=UTC), UUID(int=0))
END: Final = Position(datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))
"""Before and after every event."""


class Step(NamedTuple):
    """How many events a step redelivered, and how many it ``left`` pending or dead as they were.

    The next step begins after ``position``; None is the end.
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
        """The time by the database's clock."""

    def count(self, wanted: EventRange) -> int:
        """Count the events of a range."""

    def in_flight(self, consumer: str, most: int) -> int:
        """Count the consumer's deliveries that are due or leased, up to so many."""

    def redeliver(self, wanted: EventRange, after: Position | None, most: int) -> Step:
        """Make the next events after a position pending again, at most so many, in one commit.

        A delivery that exists, pending or dead, is left as it is.
        """
