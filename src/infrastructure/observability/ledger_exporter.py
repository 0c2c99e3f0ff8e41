"""Exports the ledger's metrics from one relay at a time."""

import threading
from collections.abc import Collection, Mapping
from datetime import timedelta
from time import monotonic, time
from typing import Final

import psycopg
import structlog
from pydantic import SecretStr
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from kratos_sync.application.errors import summary
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability.definitions import Metric
from kratos_sync.infrastructure.observability.ledger_metrics import LedgerMetrics, Part, Readings
from kratos_sync.infrastructure.postgres.connections import SessionConnection
from kratos_sync.infrastructure.postgres.engine import connect, driver_of, translate_errors

# Any number does, as long as nothing else in the database takes advisory locks on it.
EXPORT_LOCK: Final = 5_720_684_121
LOCK: Final = text("SELECT pg_try_advisory_lock(:key)")
PING: Final = text("SELECT")
STATEMENT_TIMEOUT: Final = timedelta(seconds=2)
READ_SECONDS: Final = 15.0
"""How often the ledger is read;"""
PART_OF_TIME: Final = 1 / 20
"""less often, so that reading takes no more than this share of the time,"""
LONGEST_SECONDS: Final = 60.0
"""but no less often than this."""
TICK_SECONDS: Final = 2.0
"""How often a relay tries to get the lock, and the one that has it looks whether it lost it."""
STALE_SECONDS: Final = 10.0
"""What was read is left out once PostgreSQL has not answered for so long."""

log = structlog.get_logger()


class LedgerExporter:
    """Reads the ledger every 15 s, in a thread of its own: whoever asks for values never waits.

    Of all relays the one does so whose session holds an advisory lock. Behind a pooler that shares
    sessions, which keep no such locks, every relay does.
    """

    def __init__(self, database_url: SecretStr, known: Collection[str]) -> None:
        """Connect when run; `known` are the consumers of this release."""
        self._engine = connect(database_url, 1, STATEMENT_TIMEOUT)
        self._metrics = LedgerMetrics(known)
        self._values: Readings = {}
        self._answered_at = 0.0
        self._unreadable: set[str] = set()

    @property
    def is_exporting(self) -> bool:
        """Whether this relay has values, which are not stale."""
        return bool(self._values) and monotonic() - self._answered_at < STALE_SECONDS

    def values(self, metric: Metric) -> Mapping[tuple[str, ...], float]:
        """What was read last; nothing unless this is the relay that exports."""
        return self._values.get(metric, {}) if self.is_exporting else {}

    def run(self, stopped: threading.Event) -> None:
        """Export until stopped, whenever no other relay does."""
        while not stopped.is_set():
            try:
                with translate_errors(), self._engine.connect() as connection:
                    try:
                        self._export(connection, stopped)
                    finally:
                        self._values = {}
                        connection.invalidate()  # which gives up the lock
            except (
                LedgerUnavailable,
                ConcurrencyConflict,
                SQLAlchemyError,
                psycopg.Error,
            ) as error:
                log.debug("ledger_metrics_away", **summary(error))
            stopped.wait(TICK_SECONDS)
        self._engine.dispose()

    def _export(self, connection: Connection, stopped: threading.Event) -> None:
        while not self._is_ours(connection):
            if stopped.wait(TICK_SECONDS):
                return
        while not stopped.is_set():
            began = monotonic()
            self._values = self._read(connection)
            took = monotonic() - began
            until = began + max(READ_SECONDS, min(took / PART_OF_TIME, LONGEST_SECONDS))
            while monotonic() < until and not stopped.wait(TICK_SECONDS):
                with connection.begin():
                    connection.execute(PING)
                self._answered_at = monotonic()

    def _is_ours(self, connection: Connection) -> bool:
        driver = driver_of(connection)
        with connection.begin():
            is_shared = isinstance(driver, SessionConnection) and driver.is_pooled
            return is_shared or bool(connection.execute(LOCK, {"key": EXPORT_LOCK}).scalar_one())

    def _read(self, connection: Connection) -> Readings:
        readings: dict[Metric, Mapping[tuple[str, ...], float]] = {define.LEDGER_READ: {(): time()}}
        for part in self._metrics.parts:
            try:
                with translate_errors(), connection.begin():
                    readings |= part(connection)
            except (DBAPIError, ConcurrencyConflict) as error:
                self._leave_out(part, error)
            self._answered_at = monotonic()
        return readings

    def _leave_out(self, part: Part, error: Exception) -> None:
        """Log once for each part: most likely a grant is missing, or the table is too large."""
        name = part.__name__.strip("_")
        if name not in self._unreadable:
            self._unreadable.add(name)
            sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None)
            log.warning("ledger_metrics_left_out", part=name, sqlstate=sqlstate, **summary(error))
