"""Group commit: events that wait at the same time are recorded in one transaction."""

import asyncio
import time
from asyncio import Future
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import psycopg
from psycopg.pq import Format

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.ledger.recording import RECORD_WEBHOOKS, EventRow, arrays_of
from kratos_sync.infrastructure.postgres.connections import CONNECT_TIMEOUT_SECONDS, Arguments
from kratos_sync.infrastructure.postgres.engine import QUERY_CANCELED, translate_errors
from kratos_sync.infrastructure.postgres.loop_connection import LoopConnection

_NAME: Final = b"record_group"
_BINARY: Final = [Format.BINARY] * 11


class GroupRecorder:
    """Records groups of events, each in one round trip and one commit; one at a time."""

    def __init__(self, connection: LoopConnection) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, arguments: Arguments) -> Self:
        """Connect with these arguments."""
        connection = await LoopConnection.connect(arguments)
        try:
            await connection.ask(lambda: connection.libpq.send_prepare(_NAME, RECORD_WEBHOOKS))
        except BaseException:
            await connection.close()
            raise
        return cls(connection)

    @property
    def is_lost(self) -> bool:
        """Whether nothing more can be recorded here."""
        return self._connection.is_lost

    async def record(self, rows: Sequence[EventRow]) -> list[bool]:
        """Record rows and what is owed of them in one commit, and tell of each whether it was new.

        Of rows with one id or dedupe key only the first is new. Raises psycopg.Error.
        """
        values = arrays_of(rows)
        libpq = self._connection.libpq
        result = await self._connection.ask(
            lambda: libpq.send_query_prepared(_NAME, values, _BINARY, Format.BINARY)
        )
        if result.ntuples == len(rows):
            return [True] * len(rows)
        new = {result.get_value(row, 0) for row in range(result.ntuples)}
        recorded = []
        for row in rows:
            recorded.append(row.id[4:] in new)
            new.discard(row.id[4:])
        return recorded

    async def close(self) -> None:
        """Give the connection up."""
        await self._connection.close()


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


WRITERS: Final = 2
ENOUGH_FOR_ANOTHER: Final = 32
"""So many events are worth a second writer while the first is at work,"""
TEND_SECONDS: Final = 0.02
"""and after so long any number is: the first may be held up."""
CONNECT_SECONDS: Final = 2 * CONNECT_TIMEOUT_SECONDS
REDO_SECONDS: Final = 10.0


class GroupCommit:
    """Takes in events from one event loop and commits them in groups.

    Nothing waits for a group to fill: a lone event goes at once, and while it is being written the
    next group gathers. Use after `stop`, or from another loop, starts anew.
    """

    def __init__(self, arguments: Arguments, committed: Callable[[], None]) -> None:
        """Connect with these arguments; `committed` is called after new events."""
        self._arguments = arguments
        self._committed = committed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tending: asyncio.TimerHandle | None = None
        self._stopping = False

    async def record(self, row: EventRow) -> bool:
        """Return after the commit: False if the event or its dedupe key was recorded before.

        Raises LedgerUnavailable, and psycopg.Error for what is wrong with this event alone. A
        caller that is cancelled leaves the others alone; its event may be recorded or not.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._start(loop)
        recorded: asyncio.Future[bool] = loop.create_future()
        self._waiting.add(row, recorded)
        if len(self._waiting) == 1 and self._tending is None:
            self._tending = loop.call_later(TEND_SECONDS, self._tend)
        if len(self._waiting) == (1 if len(self._idle) == WRITERS else ENOUGH_FOR_ANOTHER):
            self._wake_writer()
        return await recorded

    async def stop(self) -> None:
        """Finish what waits, and close the connections."""
        if self._loop is not asyncio.get_running_loop():
            return
        self._stopping = True
        while self._idle:
            self._wake_writer()
        await asyncio.gather(*self._writers)
        self._loop, self._stopping = None, False

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting = WaitingEvents()
        self._tending = None
        self._idle: list[asyncio.Future[None]] = []
        self._writers = [loop.create_task(self._write(loop)) for _ in range(WRITERS)]

    async def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        recorder: GroupRecorder | None = None
        try:
            while self._waiting or not self._stopping:
                if self._waiting:
                    recorder = await self._write_group(recorder, self._waiting.take_group())
                else:
                    self._idle.append(wanted := loop.create_future())
                    await wanted
        finally:
            if recorder is not None:
                await recorder.close()

    async def _write_group(
        self, recorder: GroupRecorder | None, group: Sequence[WaitingEvent]
    ) -> GroupRecorder | None:
        try:
            if recorder is None or recorder.is_lost:
                recorder = await self._connect(recorder)
            if group:
                await self._commit(recorder, group)
        except Exception as error:  # noqa: BLE001 - the callers are told, whatever it is
            fail(group, error)
        return recorder

    async def _connect(self, lost: GroupRecorder | None) -> GroupRecorder:
        if lost is not None:
            await lost.close()
        try:
            with translate_errors():
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await GroupRecorder.connect(self._arguments)
        except psycopg.Error as error:
            if error.sqlstate == QUERY_CANCELED:
                raise
            # No event is at fault: tables that are not there yet, most likely.
            state = f"SQLSTATE {error.sqlstate}"
            raise LedgerUnavailable(f"PostgreSQL is not ready for events ({state})") from error
        except (LedgerUnavailable, TimeoutError) as error:
            # Whoever waits for a turn would only wait for another connection that fails.
            away = LedgerUnavailable(str(error) or "PostgreSQL cannot be reached")
            fail(self._waiting.take_all(), away)
            raise away from error

    async def _commit(self, recorder: GroupRecorder, group: Sequence[WaitingEvent]) -> None:
        try:
            with translate_errors():
                recorded = await recorder.record([event.row for event in group])
        except (psycopg.Error, ConcurrencyConflict):
            if len(group) == 1 or recorder.is_lost:
                raise
            await self._commit_one_by_one(recorder, group)
            return
        if any(recorded):
            self._committed()
        for event, is_new in zip(group, recorded, strict=True):
            if not event.recorded.done():
                event.recorded.set_result(is_new)

    async def _commit_one_by_one(
        self, recorder: GroupRecorder, group: Sequence[WaitingEvent]
    ) -> None:
        """Let an event that cannot be recorded fail nobody but its own caller."""
        until = time.monotonic() + REDO_SECONDS
        for event in group:
            if recorder.is_lost or time.monotonic() > until:
                fail([event], LedgerUnavailable("PostgreSQL was too slow"))
                continue
            try:
                await self._commit(recorder, [event])
            except Exception as error:  # noqa: BLE001 - its caller is told, whatever it is
                fail([event], error)

    def _tend(self) -> None:
        """See now and then, while something waits, that it does not wait for ever."""
        fail(self._waiting.take_late(), LedgerUnavailable("no connection to PostgreSQL was free"))
        self._tending = None
        if self._waiting:
            self._wake_writer()
            self._tending = asyncio.get_running_loop().call_later(TEND_SECONDS, self._tend)

    def _wake_writer(self) -> None:
        if self._idle:
            self._idle.pop().set_result(None)
