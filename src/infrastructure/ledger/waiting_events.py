"""Events that wait to be recorded, bounded in number, in bytes and in time."""

import time
from asyncio import Future
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import psycopg

from application.ports.event_bus import LedgerUnavailable
from application.ports.unit_of_work import ConcurrencyConflict
from infrastructure.database import QUERY_CANCELED
from infrastructure.ledger.event_rows import EventRow

MOST_WAITING, MOST_BYTES_WAITING = 8_000, 32 * 1024 * 1024
MOST_IN_GROUP, MOST_BYTES_IN_GROUP = 256, 4 * 1024 * 1024
QUEUE_SECONDS: Final = 5.0
OF_THE_EVENT: Final = ("22", "23", "54")
"""SQLSTATE classes: data exception, integrity constraint violation, program limit exceeded."""


@dataclass(slots=True, eq=False)
class WaitingEvent:
    """An event, and the future by which its caller hears whether it was recorded now."""

    row: EventRow
    recorded: "Future[bool]"
    since: float


class WaitingEvents:
    """A queue, the oldest first."""

    def __init__(self) -> None:
        self._events: deque[WaitingEvent] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, row: EventRow, recorded: "Future[bool]") -> None:
        """Let an event wait; raises LedgerUnavailable when as many, or as many bytes, do as may."""
        size = len(row.payload)
        if len(self._events) >= MOST_WAITING or self._bytes + size > MOST_BYTES_WAITING:
            raise LedgerUnavailable("as many events wait as may")
        self._events.append(WaitingEvent(row, recorded, time.monotonic()))
        self._bytes += size

    def take_group(self) -> list[WaitingEvent]:
        """Everything, up to what a group may hold, but for events whose callers went away."""
        size = count = 0
        for event in self._events:
            size += len(event.row.payload)
            if count and (count == MOST_IN_GROUP or size > MOST_BYTES_IN_GROUP):
                break
            count += 1
        return [event for event in self._take(count) if not event.recorded.done()]

    def take_late(self) -> list[WaitingEvent]:
        """Those that have waited as long as may be."""
        oldest = time.monotonic() - QUEUE_SECONDS
        return self._take(sum(event.since <= oldest for event in self._events))

    def take_all(self) -> list[WaitingEvent]:
        """Everything."""
        return self._take(len(self._events))

    def _take(self, count: int) -> list[WaitingEvent]:
        taken = [self._events.popleft() for _ in range(count)]
        self._bytes -= sum([len(event.row.payload) for event in taken])
        return taken


def fail(events: Iterable[WaitingEvent], error: Exception) -> None:
    """Tell the callers in the words of the EventBus port; each of them gets an error of its own."""
    for event in events:
        if not event.recorded.done():
            event.recorded.set_exception(_for_a_caller(error))


def is_of_the_event(error: psycopg.Error) -> bool:
    """Whether no other attempt to record it will fare better.

    Values that PostgreSQL or a constraint refuses, and what exceeds a limit of it; whatever else is
    wrong with a database, a person may put right before the caller gives up.
    """
    return error.sqlstate is not None and error.sqlstate.startswith(OF_THE_EVENT)


def _for_a_caller(error: Exception) -> Exception:
    cause: BaseException | None
    if isinstance(error, LedgerUnavailable):
        told = LedgerUnavailable(*error.args)
    elif isinstance(error, ConcurrencyConflict):
        told = LedgerUnavailable("PostgreSQL was too busy")
    elif isinstance(error, psycopg.Error) and not is_of_the_event(error):
        told = LedgerUnavailable(
            "PostgreSQL was too slow"
            if error.sqlstate == QUERY_CANCELED
            else f"PostgreSQL cannot record events now (SQLSTATE {error.sqlstate})"
        )
    else:
        return error
    told.__cause__ = cause = error
    # The tracebacks lead to frames that hold the events, and these lead back to the error.
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return told
