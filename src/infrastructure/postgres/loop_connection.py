"""Connections to PostgreSQL that an event loop drives through libpq, without psycopg's waiting."""

import asyncio
from collections.abc import Callable
from typing import Final, Self, TypeAlias

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from kratos_sync.infrastructure.postgres.connections import (
    Arguments,
    LoopSession,
    open_loop_connection,
)
from kratos_sync.infrastructure.postgres.engine import READ_ONLY

REPLY_SECONDS: Final = 10.0
"""The connection is lost after this long without an answer: statements have half of it."""
LOST: Final = "the connection is lost"

Send: TypeAlias = Callable[[pq.abc.PGconn], None]
"""Calls a `send_…` method of libpq."""

ENDING: Final = frozenset({READ_ONLY, "26000", "0A000"})
"""SQLSTATEs after which only another connection helps: the server is read-only now, or a prepared
statement is gone or no longer fits its tables."""


class LoopConnection:
    """Sends one statement at a time, in autocommit.

    Statements raise psycopg.Error; where the connection is lost, the statement may have taken
    effect. A connection that dies while idle is noticed before its next use.
    """

    def __init__(self, connection: LoopSession) -> None:
        self._connection = connection
        self.libpq = connection.pgconn
        self._socket = self.libpq.socket
        self._loop = asyncio.get_running_loop()
        self._results: list[pq.abc.PGresult] = []
        self._answer: asyncio.Future[None] | None = None
        self.is_lost = False
        self._loop.add_reader(self._socket, self._read)

    @property
    def is_behind(self) -> bool:
        """Whether another primary has replaced the server."""
        return self._connection.is_behind

    @classmethod
    async def connect(cls, arguments: Arguments) -> Self:
        """Connect with these arguments."""
        return cls(await open_loop_connection(arguments))

    async def ask(self, send: Send) -> pq.abc.PGresult:
        """Send a statement, and wait for the result."""
        if self.is_lost:
            raise psycopg.OperationalError(LOST)
        self._answer = self._loop.create_future()
        timer = self._loop.call_later(REPLY_SECONDS, self._lose)
        try:
            send(self.libpq)
            if self.libpq.flush():
                self._loop.add_writer(self._socket, self._write)
            await self._answer
        except BaseException:
            # Interrupted within a statement, the connection cannot be used any more.
            self._answer.cancel()
            self._lose()
            raise
        finally:
            timer.cancel()
            self._answer = None
            results, self._results = self._results, []
        if self.libpq.status == pq.ConnStatus.BAD:
            self._lose()
            raise psycopg.OperationalError(LOST)
        if results[-1].status == pq.ExecStatus.FATAL_ERROR:
            error = error_from_result(results[-1])
            if error.sqlstate in ENDING:
                self._lose()
            raise error
        return results[-1]

    async def close(self) -> None:
        self._lose()
        await self._connection.close()

    def _read(self) -> None:
        # Also called while idle, when the connection dies.
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
            self._answer.set_exception(psycopg.OperationalError(LOST))


class LastingConnection:
    """A LoopConnection that is made when first used, and made again when it is lost."""

    def __init__(self, arguments: Arguments, prepare: Send | None = None) -> None:
        """`prepare` is sent first on each new connection."""
        self._arguments = arguments
        self._prepare = prepare
        self._connection: LoopConnection | None = None

    @property
    def is_lost(self) -> bool:
        connection = self._connection
        return connection is None or connection.is_lost or connection.is_behind

    async def connected(self) -> LoopConnection:
        """The connection, made if necessary."""
        if self._connection is None or self.is_lost:
            await self.close()
            connection = await LoopConnection.connect(self._arguments)
            try:
                if self._prepare is not None:
                    await connection.ask(self._prepare)
            except BaseException:
                await connection.close()
                raise
            self._connection = connection
        return self._connection

    async def ask(self, send: Send) -> pq.abc.PGresult:
        """Send a statement, and wait for the result."""
        return await (await self.connected()).ask(send)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
