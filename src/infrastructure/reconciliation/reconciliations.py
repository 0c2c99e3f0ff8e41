"""Reconciling on PostgreSQL: one at a time, by a session's advisory lock."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from application.consumers.sync_kratos_identity import SyncKratosIdentity
from application.ports.reconciliation import AnotherReconciliation
from infrastructure.database import errors_in_our_words
from infrastructure.reconciliation import runs
from infrastructure.reconciliation.dry_reconciliation import DryReconciliation
from infrastructure.reconciliation.reconciliation import LOCK_KEY, PostgresReconciliation

TAKE_TURN: Final = text("SELECT pg_try_advisory_lock(:key)")
LEAVE_TURN: Final = text("SELECT pg_advisory_unlock(:key)")
IN_HAND: Final = text("""
    SELECT count(*) FROM (
        SELECT FROM kratos_sync.deliveries WHERE consumer = :consumer AND failed_at IS NULL
        LIMIT :most) AS owed
""")


class PostgresReconciliations:
    """The port of that name."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def begin(self, *, dry_run: bool) -> Iterator[PostgresReconciliation]:
        """Take the turn for as long as the context lasts: a session's advisory lock.

        Behind a pooler that shares sessions there is no such thing: connect past it.
        """
        with errors_in_our_words(), self._engine.connect() as connection:
            with connection.begin():
                if not connection.execute(TAKE_TURN, {"key": LOCK_KEY}).scalar_one():
                    raise AnotherReconciliation("another reconciliation is at work")
            try:
                yield self._dry(connection) if dry_run else self._real(connection)
            finally:
                with suppress(SQLAlchemyError, psycopg.Error), connection.begin():
                    connection.execute(LEAVE_TURN, {"key": LOCK_KEY})

    def _real(self, connection: Connection) -> PostgresReconciliation:
        with connection.begin():
            held, before = runs.held(connection), runs.unended(connection)
            run = before or runs.begin(connection, held.number)
        resumed = before is not None
        return PostgresReconciliation(connection, run, held.schema_urls, resumed=resumed)

    def _dry(self, connection: Connection) -> DryReconciliation:
        with connection.begin():
            held = runs.held(connection)
            run = runs.pretend(connection, held.number)
        return DryReconciliation(connection, run, held.schema_urls, resumed=False)

    def is_due(self, every: timedelta) -> bool:
        """Ask the table."""
        with errors_in_our_words(), self._engine.begin() as connection:
            return runs.is_due(connection, every)

    def in_hand(self, most: int) -> int:
        """Count what the consumer that keeps the copies owes."""
        with errors_in_our_words(), self._engine.connect() as connection:
            parameters = {"consumer": SyncKratosIdentity.name, "most": most}
            counted: int = connection.execute(IN_HAND, parameters).scalar_one()
            return counted
