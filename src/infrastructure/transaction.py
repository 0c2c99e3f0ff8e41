"""One transaction at a time, and the repositories that write in it."""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, LiteralString, Protocol, TypeAlias
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import DBAPIError

from application.ports.event_bus import LedgerUnavailable
from application.ports.watch import TimeLimitExceeded
from domain.events import DomainEvent
from infrastructure.database import READ_ONLY, driver_of, errors_in_our_words
from infrastructure.session_settings import STATEMENT_TIMEOUT, milliseconds

SET_TIMEOUTS = """
    SELECT set_config('statement_timeout', $1, true),
           set_config('idle_in_transaction_session_timeout', $2, true)
"""

CANCEL_SECONDS = 2.0

Query: TypeAlias = LiteralString | bytes
Row: TypeAlias = tuple[Any, ...]


class Participant(Protocol):
    """A repository that holds back its writes until the transaction commits."""

    def flush(self) -> None:
        """Write what changed."""

    def collect_events(self) -> list[DomainEvent]:
        """Take what its aggregates raised."""

    def checkpoint(self) -> None:
        """Remember what was held back, for ``take_back``."""

    def take_back(self) -> None:
        """Forget what was held back since."""


class Transaction:
    """A PostgreSQL transaction that repositories take part in; it commits only when told to."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._participants: list[Participant] = []
        self._executed = self._handed_out = self._abandoned = False
        self._open_driver: psycopg.Connection | None = None
        self.subjects: tuple[UUID, ...] = ()
        """Whom the events of this transaction are about: a repository may load them all at once."""
        self.event_ids: Sequence[UUID] = ()
        """The events that its message named; some of them may have been settled before."""

    @contextmanager
    def begin(self, time_limit: timedelta) -> Iterator[None]:
        """Open the transaction; without a commit before the end it is rolled back.

        What the driver raises inside comes out in the application's words.
        """
        with errors_in_our_words(), self._engine.connect() as connection:
            self._connection, self._participants = connection, []
            self.subjects = self.event_ids = ()
            self._handed_out = self._abandoned = False
            self._driver = self._open_driver = driver_of(connection)
            self._cursor = psycopg.RawCursor(self._driver)
            connection.begin()
            try:
                # The events of a batch may take two limits, and need no statement in between.
                may_idle = 2 * time_limit + STATEMENT_TIMEOUT
                self.run(SET_TIMEOUTS, [str(milliseconds(each)) for each in (time_limit, may_idle)])
                yield
            except (psycopg.Error, DBAPIError) as error:
                if self._abandoned:
                    connection.invalidate(error)
                    raise LedgerUnavailable("the connection was cut") from error
                if isinstance(error, psycopg.Error) and (
                    self._driver.closed or error.sqlstate == READ_ONLY
                ):
                    connection.invalidate(error)
                raise
            except TimeLimitExceeded as error:
                # It was interrupted in the middle of anything: the server is told, and let go.
                with suppress(psycopg.Error):
                    self._driver.cancel_safe(timeout=CANCEL_SECONDS)
                connection.invalidate(error)
                raise
            except Exception as error:
                if self._driver.closed:
                    # Whatever a consumer makes of that in words of its own is no failure of it.
                    connection.invalidate(error)
                    raise LedgerUnavailable("the connection was lost") from error
                raise
            finally:
                self._connection, self._participants, self._open_driver = None, [], None

    def abandon(self) -> None:
        """Cut the connection, from any thread; does nothing once it is gone.

        What the server runs is cancelled: it would hold our rows until its end.
        """
        driver = self._open_driver
        if driver is None:
            return
        self._abandoned = True
        # Our own way to the wire, before anything else: its number may soon be another one's.
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(driver.fileno())) as wire,
        ):
            with suppress(psycopg.Error):
                driver.cancel_safe(timeout=CANCEL_SECONDS)
            wire.shutdown(socket.SHUT_RDWR)

    def execute(
        self, statement: Executable, parameters: Mapping[str, object] | list[dict[str, object]]
    ) -> CursorResult[Any]:
        """Run a statement in the transaction."""
        self._executed = True
        return self._open_connection.execute(statement, parameters)

    def checkpoint(self) -> None:
        """Remember how things stand, for ``take_back``."""
        self._executed = False
        for participant in self._participants:
            participant.checkpoint()

    def take_back(self) -> bool:
        """Undo what participants held back since the checkpoint.

        False, with nothing undone, when a statement was executed since, or somebody holds the
        connection and may have: only a rollback undoes that.
        """
        status = self._driver.info.transaction_status
        if self._executed or self._handed_out or status != TransactionStatus.INTRANS:
            return False
        for participant in self._participants:
            participant.take_back()
        return True

    def run(self, statement: Query, parameters: Sequence[object]) -> int:
        """Run a statement straight on the driver, its placeholders ``$1``; give its row count.

        For what every batch runs: it costs half of what ``execute`` does.
        """
        self._executed = True
        return self._cursor.execute(statement, parameters, prepare=True, binary=True).rowcount

    def fetch(self, statement: Query, parameters: Sequence[object]) -> list[Row]:
        """Run a statement likewise, one that only reads or locks, and give its rows."""
        return self._cursor.execute(statement, parameters, prepare=True, binary=True).fetchall()

    @property
    def connection(self) -> Connection:
        """The connection that the transaction runs on; ``execute`` leaves more to be undone."""
        self._handed_out = True  # what is done with it we do not hear of
        return self._open_connection

    @property
    def _open_connection(self) -> Connection:
        assert self._connection is not None, "no transaction has begun"  # noqa: S101
        return self._connection

    def join(self, participant: Participant) -> None:
        """Let a repository write when this transaction commits."""
        self._participants.append(participant)

    def collect_events(self) -> list[DomainEvent]:
        """Take what aggregates of any repository raised since the last call."""
        return [
            event for taking_part in self._participants for event in taking_part.collect_events()
        ]

    def commit(self) -> None:
        """Let every repository write, then commit."""
        for participant in self._participants:
            participant.flush()
        self._open_connection.commit()
