"""One transaction at a time, and the repositories that write in it."""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from typing import Any, LiteralString, Protocol, TypeAlias
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, CursorResult, Engine, Executable

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict, TimeLimitExceeded
from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.postgres.connections import STATEMENT_TIMEOUT, milliseconds
from kratos_sync.infrastructure.postgres.engine import (
    CONFLICTS,
    IDLE_IN_TRANSACTION,
    INSUFFICIENT_RESOURCES,
    LIMIT_EXCEEDED,
    driver_of,
    sqlstates_of,
    translate_errors,
)

SET_TIMEOUTS = """
    SELECT set_config('statement_timeout', $1, true),
           set_config('idle_in_transaction_session_timeout', $2, true)
"""

IS_WRITABLE = "SELECT current_setting('transaction_read_only') = 'off'"
# More than fits into so little memory: it needs room on the disk for a moment.
LITTLE_MEMORY = "SET LOCAL work_mem = '64kB'"
NEEDS_ROOM = "SELECT count(*) FROM generate_series(1, 50000)"

CANCEL_SECONDS = 2.0

Query: TypeAlias = LiteralString | bytes
Row: TypeAlias = tuple[Any, ...]


class Participant(Protocol):
    """A repository that holds back its writes until the transaction commits."""

    def flush(self) -> None:
        """Write what changed."""

    def collect_events(self) -> list[DomainEvent]:
        """Take what its aggregates raised."""

    def savepoint(self) -> None:
        """Remember what was held back, for ``roll_back_to_savepoint``."""

    def roll_back_to_savepoint(self) -> None:
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

        Whatever is raised inside comes out as it is, unless the database, asked on this very
        connection, turns out to be away: that is LedgerUnavailable. Where the transaction lost
        against another one it is ConcurrencyConflict.
        """
        with ExitStack() as stack:
            with translate_errors():
                connection = stack.enter_context(self._engine.connect())
                stack.callback(self._close)
                self._open(connection, time_limit)
            try:
                yield
            except TimeLimitExceeded as error:
                # It was interrupted in the middle of anything: the server is told, and let go.
                with suppress(psycopg.Error):
                    self._driver.cancel_safe(timeout=CANCEL_SECONDS)
                connection.invalidate(error)
                raise
            except BaseException as error:
                if (verdict := self._judge(error, connection)) is not None:
                    raise verdict from error
                raise

    def _open(self, connection: Connection, time_limit: timedelta) -> None:
        self._connection, self._participants = connection, []
        self.subjects = self.event_ids = ()
        self._handed_out = self._abandoned = False
        self._driver = self._open_driver = driver_of(connection)
        self._cursor = psycopg.RawCursor(self._driver)
        connection.begin()
        # The events of a batch may take two limits, and need no statement in between.
        may_idle = 2 * time_limit + STATEMENT_TIMEOUT
        try:
            self.run(SET_TIMEOUTS, [str(milliseconds(each)) for each in (time_limit, may_idle)])
        except psycopg.Error as error:
            connection.invalidate(error)
            raise

    def _close(self) -> None:
        self._connection, self._participants, self._open_driver = None, [], None

    def _judge(self, error: BaseException, connection: Connection) -> Exception | None:
        """Give what the error means if it is no failure of whoever raised it.

        Only this connection is asked: the error may be of any other one.
        """
        if self._abandoned:
            connection.invalidate()
            return LedgerUnavailable("the connection was cut")
        sqlstates = sqlstates_of(error)
        over = {TransactionStatus.INERROR, TransactionStatus.IDLE}
        if CONFLICTS & sqlstates and self._driver.info.transaction_status in over:
            return ConcurrencyConflict(f"SQLSTATE {', '.join(sorted(CONFLICTS & sqlstates))}")
        try:
            self._driver.rollback()
            if any(each.startswith(INSUFFICIENT_RESOURCES) for each in sqlstates):
                self.run(LITTLE_MEMORY, ())
                self.run(NEEDS_ROOM, ())
            if self.fetch(IS_WRITABLE, ()) == [(True,)]:
                return None
        except psycopg.Error as refusal:
            # Who closed the connection, left it busy or let it idle for too long did that itself.
            is_own_doing = not self._driver.broken and refusal.sqlstate in {None, LIMIT_EXCEEDED}
            if is_own_doing or IDLE_IN_TRANSACTION in sqlstates | sqlstates_of(refusal):
                connection.invalidate()
                return None
        connection.invalidate()
        return LedgerUnavailable("PostgreSQL does not answer as it should")

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

    def savepoint(self) -> None:
        """Remember how things stand, for ``roll_back_to_savepoint``."""
        self._executed = False
        for participant in self._participants:
            participant.savepoint()

    def roll_back_to_savepoint(self) -> bool:
        """Undo what participants held back since the savepoint.

        False, with nothing undone, when a statement was executed since, or somebody holds the
        connection and may have: only a rollback undoes that.
        """
        status = self._driver.info.transaction_status
        if self._executed or self._handed_out or status != TransactionStatus.INTRANS:
            return False
        for participant in self._participants:
            participant.roll_back_to_savepoint()
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
