"""Waking the relay when something is due, by NOTIFY in a transaction of its own.

NOTIFY in the recording transaction would hold a lock that is global to the server until after the
commit. A pooler in transaction mode gives notifications to any of its clients: there the relay
does not listen, and polls once a second.
"""

import asyncio
import threading
from contextlib import suppress
from contextvars import Context
from typing import Final

import psycopg
import structlog
from pydantic import SecretStr

from kratos_sync.infrastructure.postgres.connection_failures import ConnectFailed
from kratos_sync.infrastructure.postgres.connections import (
    STATEMENT_TIMEOUT,
    Arguments,
    SessionConnection,
    connection_arguments,
    open_connection,
)
from kratos_sync.infrastructure.postgres.loop_connection import LastingConnection

CHANNEL: Final = "kratos_sync_due"
NOTIFY: Final = f"NOTIFY {CHANNEL}".encode()
DEBOUNCE_SECONDS: Final = 0.005
"""Calls closer together than this share one NOTIFY."""
STOP_SECONDS: Final = 5.0

log = structlog.get_logger()


class LoopWakeUp:
    """Sends wake-ups from an event loop; a thread would wait for the interpreter's lock."""

    def __init__(self, arguments: Arguments) -> None:
        """Connect with these arguments when first called."""
        self._connection = LastingConnection(arguments)
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    def __call__(self) -> None:
        """Wake the relay soon; returns at once."""
        self._wanted = True
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            # Not in the context of the caller, whose trace would have what later ones cause.
            self._task = loop.create_task(self._run(), context=Context())

    async def stop(self) -> None:
        """Send a pending wake-up, and disconnect."""
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            await self._task
            await self._connection.close()

    async def _run(self) -> None:
        while self._wanted:
            self._wanted = False
            await self._notify()
            await asyncio.sleep(DEBOUNCE_SECONDS)

    async def _notify(self) -> None:
        try:
            async with asyncio.timeout(STATEMENT_TIMEOUT.total_seconds()):
                await self._connection.ask(lambda libpq: libpq.send_query(NOTIFY))
        except (psycopg.Error, TimeoutError) as error:
            log.warning("wake_up_lost", error=type(error).__name__)


class RelayWakeUp:
    """Sends wake-ups from a thread with an event loop of its own, so that no caller waits."""

    def __init__(self, database_url: SecretStr) -> None:
        self._wake_up = LoopWakeUp(connection_arguments(database_url))
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self) -> None:
        """Wake the relay soon; returns at once."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
                self._thread.start()
        self._loop.call_soon_threadsafe(self._wake_up)

    def stop(self) -> None:
        """Send a pending wake-up, and stop the thread."""
        if self._loop is None:
            return
        stopping = asyncio.run_coroutine_threadsafe(self._wake_up.stop(), self._loop)
        with suppress(TimeoutError):
            stopping.result(STOP_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        self._loop = None


class WakeUpListener:
    """Listens on a connection of its own, and reconnects when it is lost."""

    def __init__(self, url: SecretStr) -> None:
        self._arguments = connection_arguments(url, name="kratos-sync relay")
        self._connection: SessionConnection | None = None
        self._is_pooled = False

    def wait(self, seconds: float, stopped: threading.Event) -> None:
        """Return when woken, or after so many seconds."""
        if self._connection is not None and self._connection.is_behind:
            self.close()
        try:
            if self._is_pooled:
                stopped.wait(seconds)
                return
            if self._connection is None:
                self._listen()
                return  # what became due before sent no notification to us
            for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                pass
        except psycopg.Error as error:
            reason = str(error) if isinstance(error, ConnectFailed) else None
            log.warning("wake_ups_interrupted", error=type(error).__name__, reason=reason)
            self.close()
            stopped.wait(seconds)

    def close(self) -> None:
        """Stop listening."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _listen(self) -> None:
        connection = open_connection(self._arguments, autocommit=True)
        if connection.is_pooled:
            # The notifications would go to whoever uses the session then.
            log.info("wake_ups_not_received", reason="a pooler shares the sessions")
            self._is_pooled = True
            connection.close()
            return
        self._connection = connection
        connection.execute(f"LISTEN {CHANNEL}")
