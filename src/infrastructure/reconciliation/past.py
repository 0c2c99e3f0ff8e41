"""What the table of reconciliations remembers of the newest."""

from dataclasses import asdict
from typing import Final

from sqlalchemy import Connection, text

from application.drift import Drift
from application.ports.reconciliation import Findings, PastReconciliation
from infrastructure.reconciliation.reconciliation import LOCK_KEY

NEWEST: Final = 30

PAST: Final = text("""
    SELECT started_at, seen_at, ended_at, outcome, held, pages, identities, known, missing, stale,
           unseen, gone, fields, unheard, unreadable
    FROM kratos_sync.reconciliations ORDER BY id DESC LIMIT :most
""")
# Whoever reconciles holds this lock, in this database, for as long as it is at work.
IS_RUNNING: Final = text("""
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (classid::bigint << 32) + objid::bigint = :key)
""")


def drift(connection: Connection) -> Drift:
    """Give the newest reconciliations, and whether one is at work."""
    past = [
        PastReconciliation(
            started_at=row["started_at"],
            seen_at=row["seen_at"],
            ended_at=row["ended_at"],
            outcome=row["outcome"],
            findings=Findings(**{name: row[name] for name in asdict(Findings())}),
        )
        for row in connection.execute(PAST, {"most": NEWEST}).mappings()
    ]
    is_running: bool = connection.execute(IS_RUNNING, {"key": LOCK_KEY}).scalar_one()
    return Drift(tuple(past), is_running)
