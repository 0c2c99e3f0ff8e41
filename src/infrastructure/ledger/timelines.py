"""Notices that another server has become the primary, and keeps it in the ledger.

A failover to an asynchronous standby loses the newest commits, and with them what the ledger knew
of them. So the ledger keeps which timelines it has been on: that it is on a new one shows that
commits may be missing. How far the old one had come is remembered by the relays, outside the
database: if that is beyond the point where the new one begins, commits are missing for certain.
"""

import threading
from typing import Final

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from kratos_sync.application.ports.status import Failover
from kratos_sync.infrastructure.postgres.engine import translate_errors
from kratos_sync.infrastructure.postgres.servers import WHICH_SERVER, Server
from kratos_sync.infrastructure.schedule import Schedule

LOOK_SECONDS: Final = 1.0

# Where a standby was promoted, the last replayed position is the end of what it had received.
LOOK: Final = text(f"""
    SELECT server.*, CAST(pg_current_wal_lsn() AS text)
    FROM ({WHICH_SERVER}) AS server
""")  # noqa: S608  # it is ours
NOTE: Final = text("""
    INSERT INTO kratos_sync.timelines AS known
           (system_identifier, timeline, begins_at, last_commit_at, seen_before)
    VALUES (:system_identifier, :timeline, pg_last_wal_replay_lsn(),
            pg_last_xact_replay_timestamp(), CAST(:seen_before AS pg_lsn))
    ON CONFLICT (system_identifier, timeline) DO UPDATE
    SET seen_before = excluded.seen_before
    WHERE excluded.seen_before > coalesce(known.seen_before, '0/0')
""")
# The first is no failover; a reconciliation has found what was missing.
FAILOVER: Final = text("""
    SELECT newest.first_seen_at, newest.timeline, before.timeline,
           newest.system_identifier = before.system_identifier,
           newest.last_commit_at,
           CAST(CASE WHEN newest.seen_before > newest.begins_at
                THEN newest.seen_before - newest.begins_at END AS bigint)
    FROM kratos_sync.timelines AS newest
         JOIN kratos_sync.timelines AS before ON before.id = (
             SELECT max(id) FROM kratos_sync.timelines WHERE id < newest.id)
    WHERE newest.id = (SELECT max(id) FROM kratos_sync.timelines)
      AND NOT EXISTS (SELECT FROM kratos_sync.reconciliations
                      WHERE outcome = 'completed' AND started_at > newest.first_seen_at)
""")

log = structlog.get_logger()


class TimelineWatch(Schedule):
    """Looks every second at which timeline the server is, and notes a new one."""

    abandoned = "timeline_not_noted"

    def __init__(self, engine: Engine, look_seconds: float = LOOK_SECONDS) -> None:
        super().__init__(look_seconds)
        self._engine = engine
        self._server: Server | None = None
        self._position: str | None = None
        self._is_offered = True

    def run_once(self, stopped: threading.Event) -> None:  # noqa: ARG002  # it takes no time
        if not self._is_offered:
            return
        with translate_errors(), self._engine.begin() as connection:
            try:
                row = connection.execute(LOOK).one_or_none()
            except DBAPIError as error:
                # A managed service that does not offer the functions.
                sqlstate = getattr(error.orig, "sqlstate", None)
                if sqlstate not in {"42501", "42883", "0A000", "55000"}:
                    raise
                log.info("timelines_unknown", sqlstate=sqlstate)
                self._is_offered = False
                return
            if row is None:
                return
            server, position = Server(*row[:2]), row[2]
            if server != self._server:
                connection.execute(NOTE, self._noted(server))
        self._server, self._position = server, position

    def _noted(self, server: Server) -> dict[str, object]:
        before = self._server
        is_successor = before is not None and before.system_identifier == server.system_identifier
        return {**server._asdict(), "seen_before": self._position if is_successor else None}


def failover(connection: Connection) -> Failover | None:
    """The newest failover or restore that no reconciliation has followed."""
    row = connection.execute(FAILOVER).one_or_none()
    return None if row is None else Failover(*row)
