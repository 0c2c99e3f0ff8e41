"""One transaction at a time, and the repositories that take part in it."""

import os
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, LiteralString, Protocol, TypeAlias
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, CursorResult, Engine, Executable, TextClause

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import (
    ConcurrencyConflict,
    OtherLedgerUnavailable,
    RoomAgain,
    TimeLimitExceeded,
)
from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.postgres.connections import (
    STATEMENT_TIMEOUT,
    SessionConnection,
    milliseconds,
)
from kratos_sync.infrastructure.postgres.engine import (
    CONFLICTS,
    IDLE_IN_TRANSACTION,
    INSUFFICIENT_RESOURCES,
    LIMIT_EXCEEDED,
    driver_of,
    sqlstates_of,
    translate_errors,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

SET_TIMEOUTS = """
    SELECT set_config('statement_timeout', $1, true),
           set_config('idle_in_transaction_session_timeout', $2, true),
           set_config('kratos_sync.batch', 'open', true)
"""
ENDED = "the consumer ended the transaction of its batch"
IS_OPEN = "SELECT current_setting('kratos_sync.batch', true) = 'open'"

IS_WRITABLE = "SELECT current_setting('transaction_read_only') = 'off'"
# More than fits into so little memory: it needs room on the disk for a moment.
LITTLE_MEMORY = "SET LOCAL work_mem = '64kB'"
NEEDS_ROOM = "SELECT count(*) FROM generate_series(1, 50000)"

# One that is not released would be kept, and slow down the server once there are many.
SET_SAVEPOINT = "SAVEPOINT event"
REPLACE_SAVEPOINT = "RELEASE SAVEPOINT event; SAVEPOINT event"
ROLL_BACK = "ROLLBACK TO SAVEPOINT event"
IN_ERROR = TransactionStatus.INERROR
MAY_SET = ("SET", "DO", "CALL")
"""The first words of statements that may change the session."""

CANCEL_SECONDS = 2.0
BETWEEN_CANCELS_MILLISECONDS = 50

Query: TypeAlias = LiteralString | bytes
Row: TypeAlias = tuple[Any, ...]


class TransactionEnded(Exception):
    """The consumer committed or rolled back the transaction of its batch."""


class StatementFailed(Exception):
    """A statement of the consumer failed, and it went on: nothing can be executed after it."""


class Participant(Protocol):
    """A repository that defers its writes until the transaction commits."""

    def flush(self) -> None:
        """Write the deferred changes."""

    def collect_events(self) -> list[DomainEvent]:
        """Take the events that its aggregates have raised."""

    def savepoint(self) -> None:
        """Mark the deferred writes."""

    def roll_back_to_savepoint(self) -> None:
        """Drop the writes deferred since the mark."""


class Transaction:
    """A PostgreSQL transaction that repositories take part in."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._participants: list[Participant] = []
        self._session: Session | None = None
        self._connection_was_used = self._abandoned = False
        self._executed = self._touched = self._may_have_set = False
        self._savepoint_wanted = self._savepoint_set = False
        self._open_driver: psycopg.Connection | None = None
        self.subjects: tuple[UUID, ...] = ()
        """The identities that its events are about, so that a repository can load all at once."""
        self.event_ids: Sequence[UUID] = ()
        """The events of its message; some may have been settled before."""
        self.has_made_due = False
        """Whether deliveries are due once it commits, which the relay has to know."""

    @contextmanager
    def begin(self, time_limit: timedelta) -> Iterator[None]:
        """Open the transaction; unless it was committed it is rolled back at the end.

        Errors inside pass through. But they become LedgerUnavailable if the database does not
        answer on this connection, and ConcurrencyConflict if the transaction lost against another.
        """
        with ExitStack() as stack:
            with translate_errors():
                connection = stack.enter_context(self._engine.connect())
                stack.callback(self._close)
                self._open(connection, time_limit)
            try:
                yield
            except TimeLimitExceeded as error:
                # Interrupted anywhere: cancel the statement and drop the session.
                with suppress(psycopg.Error):
                    self._driver.cancel_safe(timeout=CANCEL_SECONDS)
                connection.invalidate(error)
                raise
            except BaseException as error:
                if (translated := self._judge(error, connection)) is not None:
                    raise translated from error
                if isinstance(error, LedgerUnavailable):
                    raise OtherLedgerUnavailable(str(error)) from error
                raise

    def _open(self, connection: Connection, time_limit: timedelta) -> None:
        self._connection, self._participants = connection, []
        self.subjects = self.event_ids = ()
        self._connection_was_used = self._abandoned = self._may_have_set = False
        self._savepoint_wanted = self._savepoint_set = False
        self._driver = self._open_driver = driver_of(connection)
        self._cursor = psycopg.RawCursor(self._driver)
        self._begun = connection.begin()
        # A batch may take two time limits without a statement in between.
        may_idle = 2 * time_limit + STATEMENT_TIMEOUT
        try:
            self.run(SET_TIMEOUTS, [str(milliseconds(each)) for each in (time_limit, may_idle)])
        except psycopg.Error as error:
            connection.invalidate(error)
            raise

    def _close(self) -> None:
        if self._session is not None:
            self._session.expunge_all()
        if self._connection_was_used or self._may_have_set:
            self._restore_session(self._open_connection)
        self._connection, self._participants, self._open_driver = None, [], None
        self._session = None

    def _restore_session(self, connection: Connection) -> None:
        """Undo what the consumer may have set, and committed: a role, a time-out."""
        driver = self._driver
        if driver.info.transaction_status != TransactionStatus.IDLE:
            return  # rolled back next
        try:
            if isinstance(driver, SessionConnection):
                driver.restore()
        except psycopg.Error as error:
            connection.invalidate(error)

    def _judge(self, error: BaseException, connection: Connection) -> Exception | None:
        """What an error means if it is not the consumer's failure; else None.

        Only this connection decides, for the error may come from any other.
        """
        if self._abandoned:
            connection.invalidate()
            return LedgerUnavailable("the connection was cut")
        self._savepoint_wanted = False
        sqlstates = sqlstates_of(error)
        over = {TransactionStatus.INERROR, TransactionStatus.IDLE}
        is_over = self._driver.info.transaction_status in over
        is_exhausted = any(each.startswith(INSUFFICIENT_RESOURCES) for each in sqlstates)
        if CONFLICTS & sqlstates and is_over:
            return ConcurrencyConflict(f"SQLSTATE {', '.join(sorted(CONFLICTS & sqlstates))}")
        try:
            self._driver.rollback()
            if is_exhausted:
                self.run(LITTLE_MEMORY, ())
                self.run(NEEDS_ROOM, ())
            is_writable = self.fetch(IS_WRITABLE, ()) == [(True,)]
            # After a commit that failed SQLAlchemy knows of no transaction, and would end none.
            self._driver.rollback()
            if is_writable:
                # It may have been full a moment ago.
                is_transient = is_exhausted and is_over and LIMIT_EXCEEDED not in sqlstates
                return RoomAgain("the server has room again") if is_transient else None
        except psycopg.Error as refusal:
            # The consumer closed the connection, left it busy, or let it idle for too long.
            is_own_doing = not self._driver.broken and refusal.sqlstate in {None, LIMIT_EXCEEDED}
            if is_own_doing or IDLE_IN_TRANSACTION in sqlstates | sqlstates_of(refusal):
                connection.invalidate()
                return None
        connection.invalidate()
        return LedgerUnavailable("PostgreSQL does not answer as it should")

    def abandon(self) -> None:
        """Cut the connection, from any thread, and cancel its statement, which may hold locks."""
        driver = self._open_driver
        if driver is None:
            return
        self._abandoned = True
        # A duplicate of the descriptor first: its number may soon be reused.
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(driver.fileno())) as wire,
        ):
            with suppress(psycopg.Error):
                driver.cancel_safe(timeout=CANCEL_SECONDS)
                self._end_session(driver, wire)
            wire.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _end_session(driver: psycopg.Connection, wire: socket.socket) -> None:
        """Stop sending, and cancel what was sent since the last cancellation."""
        wire.shutdown(socket.SHUT_WR)
        server_closed = select.poll()
        server_closed.register(wire, select.POLLHUP)
        give_up = monotonic() + CANCEL_SECONDS
        while not server_closed.poll(BETWEEN_CANCELS_MILLISECONDS) and monotonic() < give_up:
            driver.cancel_safe(timeout=CANCEL_SECONDS)

    def execute(
        self, statement: Executable, parameters: Mapping[str, object] | list[dict[str, object]]
    ) -> CursorResult[Any]:
        """Run a statement in the transaction."""
        self._before_statement()
        if isinstance(statement, TextClause):
            self._may_have_set |= statement.text.lstrip().upper().startswith(MAY_SET)
        return self._open_connection.execute(statement, parameters)

    def savepoint(self, *, in_database: bool = False) -> None:
        self._savepoint_wanted = in_database
        if in_database and self._connection_was_used:
            self._set_savepoint()
        self._executed = self._touched = False
        for participant in self._participants:
            participant.savepoint()

    def roll_back_to_savepoint(self, error: BaseException) -> bool:
        """Undo what was done since the savepoint.

        False, with nothing undone, if only a rollback can: without a savepoint in the database once
        a statement was executed, or may have been on ``connection``; after an interruption if it
        may have come in the middle of a statement or of a repository's work.
        """
        if isinstance(error, TimeLimitExceeded) and (
            self._participants or self._touched or self._connection_was_used
        ):
            return False
        status, executed = self._driver.info.transaction_status, self._executed
        if self._savepoint_wanted and status in {TransactionStatus.INTRANS, IN_ERROR}:
            if self._savepoint_set and (executed or self._connection_was_used):
                if self._session is not None:
                    self._session.rollback()
                    self._session.expunge_all()
                self._driver.execute(ROLL_BACK)
            elif status == IN_ERROR:
                return False
        elif executed or self._connection_was_used or status != TransactionStatus.INTRANS:
            return False
        for participant in self._participants:
            participant.roll_back_to_savepoint()
        return True

    def is_conflict(self, error: BaseException) -> bool:
        """Whether the error says that the transaction lost against another, or found no room."""
        is_ours = self._driver.info.transaction_status == IN_ERROR
        return isinstance(error, ConcurrencyConflict) or (
            is_ours
            and any(
                each in CONFLICTS or each.startswith(INSUFFICIENT_RESOURCES)
                for each in sqlstates_of(error)
            )
        )

    def _before_statement(self) -> None:
        if self._savepoint_wanted and not self._executed:
            self._set_savepoint()
        self._executed = self._touched = True

    def _set_savepoint(self) -> None:
        self._driver.execute(REPLACE_SAVEPOINT if self._savepoint_set else SET_SAVEPOINT)
        self._savepoint_set = True

    def run(self, statement: Query, parameters: Sequence[object]) -> int:
        """Run a statement on the driver, with placeholders ``$1``; returns the row count.

        It costs half of what ``execute`` does.
        """
        self._before_statement()
        done = self._cursor.execute(statement, parameters, prepare=True, binary=True)
        self._may_have_set |= done.statusmessage in MAY_SET
        return done.rowcount

    def fetch(self, statement: Query, parameters: Sequence[object]) -> list[Row]:
        """Run a statement that only reads or locks, likewise; returns its rows."""
        self._touched = True
        return self._cursor.execute(statement, parameters, prepare=True, binary=True).fetchall()

    @property
    def connection(self) -> Connection:
        """The connection of the transaction; prefer ``execute``, which savepoints know of."""
        self._before_statement()
        self._connection_was_used = True
        return self._open_connection

    @property
    def driver(self) -> psycopg.Connection:
        """The psycopg connection of the transaction, for its cursors; as ``connection``."""
        return driver_of(self.connection)

    @property
    def session(self) -> "Session":
        """An ORM session on the connection; it is flushed after each event.

        It works in a savepoint of its own: to roll it back undoes what it did for the event.
        """
        if self._session is None:
            # Few consumers use it, and it takes long to import.
            from sqlalchemy.orm import Session

            self._session = Session(
                self.connection, join_transaction_mode="create_savepoint", expire_on_commit=False
            )
        return self._session

    @property
    def _open_connection(self) -> Connection:
        assert self._connection is not None, "no transaction has begun"  # noqa: S101
        return self._connection

    def write_deferred(self) -> None:
        """Flush the ORM session. Raises StatementFailed if an error was swallowed."""
        if self._connection_was_used and self._open_connection.get_transaction() is not self._begun:
            # The session would commit a transaction of its own.
            raise TransactionEnded(ENDED)
        if self._session is not None:
            self._before_statement()
            self._session.commit()
        if self._driver.pgconn.transaction_status == IN_ERROR:
            raise StatementFailed("a statement failed, and its error was not raised")

    def end_events(self) -> None:
        """Note that what follows belongs to no event. Raises TransactionEnded."""
        self.savepoint()
        if self._connection_was_used and self.fetch(IS_OPEN, ()) != [(True,)]:
            raise TransactionEnded(ENDED)

    def join(self, participant: Participant) -> None:
        """Flush a repository when this transaction commits."""
        self._participants.append(participant)

    def collect_events(self) -> list[DomainEvent]:
        """Take the events that aggregates of any repository raised since the last call."""
        return [
            event for participant in self._participants for event in participant.collect_events()
        ]

    def flush(self) -> None:
        """Write what repositories and the session have deferred."""
        for participant in self._participants:
            participant.flush()
        self.write_deferred()

    def commit(self) -> None:
        """Flush, then commit."""
        self.flush()
        self._open_connection.commit()
