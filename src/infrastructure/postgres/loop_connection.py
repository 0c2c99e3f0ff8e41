"""A connection to PostgreSQL that an event loop drives through libpq itself."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Self

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from kratos_sync.infrastructure.postgres.connections import Arguments, open_loop_connection
from kratos_sync.infrastructure.postgres.engine import READ_ONLY

REPLY_SECONDS: Final = 10.0
"""What has not been answered by then never will be: no statement may take half as long."""

ENDING: Final = frozenset({READ_ONLY, "26000", "0A000"})
"""SQLSTATEs after which only another connection helps: no primary any more, or what was prepared
is gone, or no longer fits its tables."""


class LoopConnection:
    """Sends one statement at a time, in autocommit, and raises psycopg.Error.

    psycopg's own waiting costs several times what a whole group of events does here. After an
    error for a lost connection it is open whether the statement took effect.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self.libpq = connection.pgconn
        self._socket = self.libpq.socket
        self._loop = asyncio.get_running_loop()
        self._results: list[pq.abc.PGresult] = []
        self._answer: asyncio.Future[None] | None = None
        self.is_lost = False
        self._loop.add_reader(self._socket, self._read)

    @classmethod
    async def connect(cls, arguments: Arguments) -> Self:
        """Connect with these arguments."""
        return cls(await open_loop_connection(arguments))

    async def ask(self, send: Callable[[], None]) -> pq.abc.PGresult:
        """Call `send`, which sends a statement by a method of `libpq`, and wait for its result."""
        if self.is_lost:
            raise psycopg.OperationalError("the connection is lost")
        self._answer = self._loop.create_future()
        timer = self._loop.call_later(REPLY_SECONDS, self._lose)
        try:
            send()
            if self.libpq.flush():
                self._loop.add_writer(self._socket, self._write)
            await self._answer
        except BaseException:
            # In the middle of a statement it is of no further use.
            self._answer.cancel()
            self._lose()
            raise
        finally:
            timer.cancel()
            self._answer = None
            results, self._results = self._results, []
        if self.libpq.status == pq.ConnStatus.BAD:
            self._lose()
            raise psycopg.OperationalError("the connection is lost")
        if results[-1].status == pq.ExecStatus.FATAL_ERROR:
            error = error_from_result(results[-1])
            if error.sqlstate in ENDING:
                self._lose()
            raise error
        return results[-1]

    async def close(self) -> None:
        """Give the connection up."""
        self._lose()
        await self._connection.close()

    def _read(self) -> None:
        # Also called while nothing was asked: so a connection that dies is noticed before its use.
        try:
            self.libpq.consume_input()
            while self._answer is not None and not self.libpq.is_busy():
                if (result := self.libpq.get_result()) is None:
                    if not self._answer.done():
                        self._answer.set_result(None)
                    return
                self._results.append(result)
        except psycopg.OperationalError:
            self._lose()

    def _write(self) -> None:
        try:
            if not self.libpq.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.OperationalError:
            self._lose()

    def _lose(self) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(psycopg.OperationalError("the connection is lost"))
