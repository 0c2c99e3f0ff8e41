"""Recorded events, to be delivered once more."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, TypedDict
from uuid import UUID

from kratos_sync.application.ports.dead_letters import DeadLetterFilter
from kratos_sync.application.ports.position import Position


class Narrowing(TypedDict, total=False):
    """What else may be asked of the events of a range, as EventRange says it."""

    identity_id: UUID | None
    source: str | None
    hook: str | None
    trace_id: str | None
    outcome: str | None
    of_consumer: str | None
    event_ids: tuple[UUID, ...]
    dead: DeadLetterFilter | None


@dataclass(frozen=True, slots=True)
class EventRange:
    """The events that one consumer is to get again.

    Those with one of the ``names`` that were recorded from ``since`` on and before ``until``; with
    an ``identity_id`` only those about it, and only those of the ``source``, the label of a
    ``hook``, and the ``trace_id`` (32 hexadecimal digits) that are given. ``of_consumer`` and
    ``outcome`` are as EventFilter has them. Of ``event_ids`` only those, if there are any; of
    ``dead`` only those whose delivery is such a dead letter.
    """

    consumer: str
    names: tuple[str, ...]
    since: datetime
    until: datetime
    identity_id: UUID | None = None
    source: str | None = None
    hook: str | None = None
    trace_id: str | None = None
    outcome: str | None = None
    of_consumer: str | None = None
    event_ids: tuple[UUID, ...] = ()
    dead: DeadLetterFilter | None = None


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
