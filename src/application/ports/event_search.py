"""Searching the log of events, page by page, however large it is."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from kratos_sync.application.ports.position import Position

PENDING, DEAD, FAILED = "pending", "dead", "failed"
OUTCOMES: Final = (PENDING, DEAD, "succeeded", FAILED, "postponed", "retried", "discarded")
MOST_READ: Final = 2_000
"""How many events of the log a page searches;"""
MOST_READ_FURTHER: Final = 200_000
"""and how many on demand."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events: those that match every field that is set.

    ``consumer`` and ``outcome`` together mean that consumer's outcome; ``outcome`` is one of
    OUTCOMES: that of a delivery that exists, or of any attempt. ``hook`` is a label of Kratos'
    hooks, ``trace_id`` 32 hexadecimal digits. ``since`` is inclusive, ``until`` is not.
    """

    name: str | None = None
    source: str | None = None
    hook: str | None = None
    trace_id: str | None = None
    consumer: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class FoundEvent(NamedTuple):
    """An event without anything of the person but the id.

    ``states`` are the consumers whose delivery is not done, and how: ``pending`` or ``dead``.
    """

    id: UUID
    name: str
    identity_id: UUID
    source: str
    hook: str | None
    recorded_at: datetime
    states: dict[str, str]


class FoundEvents(NamedTuple):
    """A page of events, the newest first; the search goes on at ``next``, None at its end.

    A page may have fewer events than were wanted, or none, and yet not be the last: one page
    searches a bounded number of events. There are others after ``next``, which need not match.
    """

    events: list[FoundEvent]
    next: Position | None


class EventSearch(Protocol):
    """Reads the log. Raises LedgerUnavailable, or the reason why the schema cannot be read."""

    def newest(
        self, wanted: EventFilter, most: int, before: Position | None, read: int = MOST_READ
    ) -> FoundEvents:
        """The newest events that match, at most so many, of those before a position.

        ``read`` events are searched. Where few deliveries are pending, or dead letters, and those
        are wanted, all of them are.
        """
