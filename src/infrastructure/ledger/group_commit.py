"""The event bus: events that wait at the same time are recorded in one transaction."""

import asyncio
import time
from asyncio import Future
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import psycopg
from psycopg.pq import Format
from psycopg.pq.abc import PGconn
from pydantic import SecretStr

from kratos_sync.application.errors import with_causes
from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance, Publishable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.ledger.notifications import LoopWakeUp
from kratos_sync.infrastructure.ledger.recording import (
    COLUMN_OIDS,
    RECORD_WEBHOOKS,
    EventRow,
    arrays_of,
)
from kratos_sync.infrastructure.observability.observer import UNOBSERVED, Observer
from kratos_sync.infrastructure.observability.spans import NO_SPANS, Spans
from kratos_sync.infrastructure.postgres.connections import (
    CONNECT_TIMEOUT_SECONDS,
    connection_arguments,
)
from kratos_sync.infrastructure.postgres.engine import QUERY_CANCELED, translate_errors
from kratos_sync.infrastructure.postgres.loop_connection import LastingConnection

# Kratos gives a webhook 30 s, in which several attempts have to fit.
STATEMENT_TIMEOUT: Final = timedelta(seconds=4)
MOST_WAITING, MOST_BYTES_WAITING = 8_000, 32 * 1024 * 1024
MOST_IN_GROUP, MOST_BYTES_IN_GROUP = 256, 4 * 1024 * 1024
QUEUE_SECONDS: Final = 5.0
"""How long an event may wait for its turn."""
WRITERS: Final = 2
ENOUGH_FOR_ANOTHER: Final = 32
"""A second writer joins a busy one for so many events,"""
TEND_SECONDS: Final = 0.02
"""or, however few they are, after so long: the first writer may be blocked."""
CONNECT_SECONDS: Final = 2 * CONNECT_TIMEOUT_SECONDS
REDO_SECONDS: Final = 10.0
"""How long the events of a failed group are recorded one by one."""
EVENT_ERRORS: Final = ("22", "23", "54")
"""SQLSTATE classes: data exception, integrity constraint violation, program limit exceeded."""
_NAME: Final = b"record_group"
_BINARY: Final = [Format.BINARY] * len(COLUMN_OIDS)


@dataclass(slots=True, eq=False)
class WaitingEvent:
    """An event, and the future for whether it is new."""

    row: EventRow
    recorded: "Future[bool]"
    since: float


class WaitingEvents:
    """A bounded queue of events, oldest first."""

    def __init__(self) -> None:
        self._events: deque[WaitingEvent] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, row: EventRow, recorded: "Future[bool]") -> None:
        """Append an event. Raises LedgerUnavailable if the queue is full, in number or bytes."""
        size = len(row.payload)
        if len(self._events) >= MOST_WAITING or self._bytes + size > MOST_BYTES_WAITING:
            raise LedgerUnavailable("too many events are waiting")
        self._events.append(WaitingEvent(row, recorded, time.monotonic()))
        self._bytes += size

    def take_group(self) -> list[WaitingEvent]:
        """Take as many events as fit into a group, without those of cancelled callers."""
        size = count = 0
        for event in self._events:
            size += len(event.row.payload)
            if count and (count == MOST_IN_GROUP or size > MOST_BYTES_IN_GROUP):
                break
            count += 1
        return [event for event in self._take(count) if not event.recorded.done()]

    def take_late(self) -> list[WaitingEvent]:
        """Take the events that have waited for QUEUE_SECONDS."""
        oldest = time.monotonic() - QUEUE_SECONDS
        return self._take(sum(event.since <= oldest for event in self._events))

    def take_all(self) -> list[WaitingEvent]:
        return self._take(len(self._events))

    def _take(self, count: int) -> list[WaitingEvent]:
        taken = [self._events.popleft() for _ in range(count)]
        self._bytes -= sum([len(event.row.payload) for event in taken])
        return taken


def fail(events: Iterable[WaitingEvent], error: Exception) -> None:
    """Raise the error in each caller, translated as the EventBus port says."""
    for event in events:
        if not event.recorded.done():
            event.recorded.set_exception(_for_a_caller(error))


def is_of_the_event(error: psycopg.Error) -> bool:
    """Whether the event's own values are the cause, so that no other attempt can succeed."""
    return error.sqlstate is not None and error.sqlstate.startswith(EVENT_ERRORS)


def _for_a_caller(error: Exception) -> Exception:
    if isinstance(error, LedgerUnavailable):
        translated = LedgerUnavailable(*error.args)
    elif isinstance(error, ConcurrencyConflict):
        translated = LedgerUnavailable("PostgreSQL was too busy")
    elif isinstance(error, psycopg.Error) and not is_of_the_event(error):
        translated = LedgerUnavailable(
            "PostgreSQL was too slow"
            if error.sqlstate == QUERY_CANCELED
            else f"PostgreSQL cannot record events now (SQLSTATE {error.sqlstate})"
        )
    else:
        return error
    translated.__cause__ = error
    # The frames of the tracebacks hold the events, which lead back to the error.
    for cause in with_causes(error, suppressed=True):
        cause.__traceback__ = None
    return translated


class PostgresEventBus:
    """The EventBus port: events that are published at the same time share a commit.

    Nothing waits for a group to fill: a single event is written at once, and the next group gathers
    meanwhile. It can be used again after `stop`, and from another loop.
    """

    def __init__(
        self,
        database_url: SecretStr,
        wake_relay: Callable[[], None] | None = None,
        observer: Observer = UNOBSERVED,
        spans: Spans = NO_SPANS,
    ) -> None:
        """Connect when first used; `wake_relay` is called once after each commit.

        By default it notifies the relay through PostgreSQL.
        """
        self._observer = observer
        self._spans = spans
        self._arguments = connection_arguments(database_url, STATEMENT_TIMEOUT)
        self._wake_up = LoopWakeUp(self._arguments)
        self._committed = wake_relay or self._wake_up
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tending: asyncio.TimerHandle | None = None
        self._stopping = False

    async def publish(self, event: Publishable, provenance: Provenance) -> bool:
        """Return after the commit: False if the event or its dedupe key was recorded before.

        Raises LedgerUnavailable, or psycopg.Error if the event itself is the cause. If the caller
        is cancelled, its event may be recorded or not.
        """
        row = EventRow.of(event, provenance)
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
        """Record what is waiting, and close the connections."""
        if self._loop is asyncio.get_running_loop():
            self._stopping = True
            while self._idle:
                self._wake_writer()
            await asyncio.gather(*self._writers)
            self._loop, self._stopping = None, False
        await self._wake_up.stop()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting = WaitingEvents()
        self._tending = None
        self._idle: list[asyncio.Future[None]] = []
        # Not in the context of the first caller, whose trace would have all that they log.
        self._writers = [
            loop.create_task(self._write(loop), context=Context()) for _ in range(WRITERS)
        ]

    async def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        connection = LastingConnection(self._arguments, _prepare)
        try:
            while self._waiting or not self._stopping:
                if self._waiting:
                    await self._write_group(connection, self._waiting.take_group())
                else:
                    self._idle.append(wanted := loop.create_future())
                    await wanted
        finally:
            await connection.close()

    async def _write_group(
        self, connection: LastingConnection, group: Sequence[WaitingEvent]
    ) -> None:
        try:
            if connection.is_lost:
                await self._connect(connection)
            if group:
                await self._commit(connection, group)
        except Exception as error:  # noqa: BLE001  # the callers get it
            if isinstance(error, LedgerUnavailable):
                self._observer.ledger_unavailable()
            fail(group, error)

    async def _connect(self, connection: LastingConnection) -> None:
        try:
            with translate_errors():
                async with asyncio.timeout(CONNECT_SECONDS):
                    await connection.connected()
        except psycopg.Error as error:
            if error.sqlstate == QUERY_CANCELED:
                raise
            # No event is the cause: most likely the tables do not exist yet.
            state = f"SQLSTATE {error.sqlstate}"
            raise LedgerUnavailable(f"PostgreSQL is not ready for events ({state})") from error
        except Exception as error:  # such as a thread that could not be started
            # The others would only wait for another connection that fails.
            known = isinstance(error, LedgerUnavailable)
            away = LedgerUnavailable(str(error) if known else "PostgreSQL cannot be reached")
            fail(self._waiting.take_all(), away)
            raise away from error

    async def _commit(self, connection: LastingConnection, group: Sequence[WaitingEvent]) -> None:
        try:
            with translate_errors(), self._spans.commit(event.row.traceparent for event in group):
                recorded = await _record(connection, [event.row for event in group])
        except (psycopg.Error, ConcurrencyConflict):
            if len(group) == 1 or connection.is_lost:
                raise
            await self._commit_one_by_one(connection, group)
            return
        self._observer.committed(len(group))
        if any(recorded):
            self._committed()
        for event, is_new in zip(group, recorded, strict=True):
            if not event.recorded.done():
                event.recorded.set_result(is_new)

    async def _commit_one_by_one(
        self, connection: LastingConnection, group: Sequence[WaitingEvent]
    ) -> None:
        """Record a group so that an event that cannot be recorded fails only its own caller."""
        until = time.monotonic() + REDO_SECONDS
        for event in group:
            if connection.is_lost or time.monotonic() > until:
                fail([event], LedgerUnavailable("PostgreSQL was too slow"))
                continue
            try:
                await self._commit(connection, [event])
            except Exception as error:  # noqa: BLE001  # the caller gets it
                fail([event], error)

    def _tend(self) -> None:
        """While events wait: fail those that have waited too long, and start a second writer."""
        fail(self._waiting.take_late(), LedgerUnavailable("no connection to PostgreSQL was free"))
        self._tending = None
        if self._waiting:
            self._wake_writer()
            self._tending = asyncio.get_running_loop().call_later(TEND_SECONDS, self._tend)

    def _wake_writer(self) -> None:
        if self._idle:
            self._idle.pop().set_result(None)


def _prepare(libpq: PGconn) -> None:
    libpq.send_prepare(_NAME, RECORD_WEBHOOKS)


async def _record(connection: LastingConnection, rows: Sequence[EventRow]) -> list[bool]:
    """Record a group in one round trip and one commit; returns for each row whether it is new.

    Of rows with the same id or dedupe key only the first is new. Raises psycopg.Error.
    """
    values = arrays_of(rows)
    result = await connection.ask(
        lambda libpq: libpq.send_query_prepared(_NAME, values, _BINARY, Format.BINARY)
    )
    if result.ntuples == len(rows):
        return [True] * len(rows)
    new = {result.get_value(row, 0) for row in range(result.ntuples)}
    recorded = []
    for row in rows:
        recorded.append(row.id[4:] in new)
        new.discard(row.id[4:])
    return recorded
