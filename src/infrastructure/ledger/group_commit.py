"""Group commit: events that wait at the same time are recorded in one transaction."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import psycopg

from application.ports.event_bus import LedgerUnavailable
from application.ports.unit_of_work import ConcurrencyConflict
from infrastructure.connecting import CONNECT_TIMEOUT_SECONDS, Arguments
from infrastructure.database import QUERY_CANCELED, errors_in_our_words
from infrastructure.ledger.event_rows import EventRow
from infrastructure.ledger.group_recorder import GroupRecorder
from infrastructure.ledger.waiting_events import WaitingEvent, WaitingEvents, fail

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
            with errors_in_our_words():
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
            with errors_in_our_words():
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
