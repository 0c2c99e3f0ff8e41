"""The relay's ear: waiting for a wake-up, or for a time to come."""

import threading

import psycopg
import structlog
from pydantic import SecretStr

from infrastructure.connecting import connection_arguments, open_connection
from infrastructure.connection_failures import ConnectFailed
from infrastructure.ledger.wakeup import CHANNEL

log = structlog.get_logger()


class WakeUpListener:
    """Listens on a connection of its own, and comes back to it when it is lost."""

    def __init__(self, url: SecretStr) -> None:
        self._arguments = connection_arguments(url, name="kratos-sync relay")
        self._connection: psycopg.Connection | None = None

    def wait(self, seconds: float, stopped: threading.Event) -> None:
        """Return when woken, or after so many seconds; without a connection, after these."""
        try:
            if self._connection is None:
                self._connection = self._listen()
                return  # what was due before we listened has woken nobody
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

    def _listen(self) -> psycopg.Connection:
        connection = open_connection(self._arguments, autocommit=True)
        connection.execute(f"LISTEN {CHANNEL}")
        return connection
