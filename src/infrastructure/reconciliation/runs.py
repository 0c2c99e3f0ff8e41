"""The reconciliation runs in PostgreSQL: one at a time, resumed where they were interrupted."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.drift import (
    MOST_PAST,
    Drift,
    KratosReport,
    Unlisted,
    UnlistedIdentity,
)
from kratos_sync.application.ports.reconciliation import (
    SHORTEST_PAUSE,
    AnotherReconciliation,
    Findings,
    PastReconciliation,
)
from kratos_sync.domain.events import NO_IDENTITY, KratosTemplateFailed
from kratos_sync.domain.id_range import ALL_IDS, IdRange
from kratos_sync.infrastructure.ledger.hook_activity import hook_activity
from kratos_sync.infrastructure.ledger.snapshot import snapshot
from kratos_sync.infrastructure.postgres.engine import require_own_session, translate_errors
from kratos_sync.infrastructure.reconciliation.reconciliation import (
    DELETE_UNLISTED,
    LOCK_KEY,
    DryReconciliation,
    Place,
    PostgresReconciliation,
    Run,
)

KEPT: Final = 1_000
RESUMED_WITHIN: Final = timedelta(days=1)
"""A run that was interrupted longer ago starts again: too much has changed since."""

LOCK: Final = text("SELECT pg_try_advisory_lock(:key)")
UNLOCK: Final = text("SELECT pg_advisory_unlock(:key)")
IS_RUNNING: Final = text("""
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (classid::bigint << 32) + objid::bigint = :key)
""")
UNENDED: Final = text("""
    SELECT * FROM kratos_sync.reconciliations
    WHERE id = (SELECT max(id) FROM kratos_sync.reconciliations)
      AND ended_at IS NULL
      AND seen_at BETWEEN clock_timestamp() - :within AND clock_timestamp()
""")
PAST: Final = text("""
    SELECT * FROM kratos_sync.reconciliations
    WHERE CAST(:before AS timestamptz) IS NULL OR started_at < :before
    ORDER BY id DESC LIMIT :most
""")
BEGIN: Final = text("""
    INSERT INTO kratos_sync.reconciliations (held) VALUES (:held) RETURNING id, started_at
""")
BEFORE: Final = text("""
    SELECT max(started_at) FROM kratos_sync.reconciliations
    WHERE id < coalesce(:id, id + 1) AND ended_at IS NOT NULL AND identities > 0
      AND started_at <= clock_timestamp()
""")
HELD: Final = text("""
    SELECT coalesce(sum(number), 0)::bigint,
           coalesce(array_agg(schema_url) FILTER (WHERE schema_url IS NOT NULL), '{}')
    FROM (SELECT schema_url, count(*) AS number FROM kratos_sync.kratos_identities
          WHERE deleted_at IS NULL AND id BETWEEN :first AND :last GROUP BY schema_url) AS held
""")
NOW: Final = text("SELECT clock_timestamp()")
# Of a run that was refused: any other has settled them, or goes on with them.
UNLISTED: Final = """
    WITH refused AS (
        SELECT id, started_at FROM kratos_sync.reconciliations
        WHERE ended_at IS NOT NULL AND outcome <> 'completed' ORDER BY id DESC LIMIT 1
    ), undecided AS MATERIALIZED (
        SELECT identity.id, {traits} AS traits
        FROM refused JOIN kratos_sync.unseen_identities unseen ON unseen.reconciliation = refused.id
             JOIN kratos_sync.kratos_identities identity ON identity.id = unseen.identity_id
        WHERE identity.deleted_at IS NULL AND NOT EXISTS (
            SELECT FROM kratos_sync.kratos_answers answer
            WHERE answer.identity_id = identity.id AND answer.asked_at > refused.started_at)
    )
    SELECT (SELECT count(*) FROM undecided), id, traits FROM undecided
    WHERE id > :after ORDER BY id LIMIT :most
"""
DELETE_OLD: Final = text("DELETE FROM kratos_sync.reconciliations WHERE id <= :run - :kept")
# A run in the future was recorded before a clock was set back, and does not count. A template that
# failed makes a run due after a pause as long as the last one took.
IS_DUE: Final = text("""
    SELECT coalesce(bool_and(
        started_at <= clock_timestamp() - :every
        OR ended_at + greatest(ended_at - started_at, :pause) <= clock_timestamp() AND EXISTS (
            SELECT FROM kratos_sync.events
            WHERE subject = :no_identity AND name = :template_failed
                  AND recorded_at > started_at AND recorded_at <= clock_timestamp())
    ), true)
    FROM (SELECT started_at, ended_at FROM kratos_sync.reconciliations
          WHERE ended_at IS NOT NULL AND started_at <= clock_timestamp()
          ORDER BY id DESC LIMIT 1) AS last
""").bindparams(
    no_identity=NO_IDENTITY, template_failed=KratosTemplateFailed.name, pause=SHORTEST_PAUSE
)
IN_FLIGHT: Final = text("""
    SELECT count(*) FROM (
        SELECT FROM kratos_sync.deliveries WHERE consumer = :consumer AND failed_at IS NULL
        LIMIT :most) AS pending
""")


class PostgresReconciliations:
    """The Reconciliations port, for the identities of these ids."""

    def __init__(self, engine: Engine, ids: IdRange = ALL_IDS) -> None:
        self._engine = engine
        self._ids = ids

    @contextmanager
    def begin(self, *, dry_run: bool) -> Iterator[PostgresReconciliation]:
        """Hold a session's advisory lock for as long as the context lasts.

        Raises SessionShared behind a pooler, which keeps no such locks.
        """
        with translate_errors(), self._engine.connect() as connection:
            require_own_session(connection)
            with connection.begin():
                if not connection.execute(LOCK, {"key": LOCK_KEY}).scalar_one():
                    raise AnotherReconciliation("another reconciliation is at work")
            try:
                with connection.begin():
                    begin = begin_dry if dry_run else begin_or_resume
                    run = begin(connection, self._ids)
                yield (DryReconciliation if dry_run else PostgresReconciliation)(connection, run)
            finally:
                with suppress(SQLAlchemyError, psycopg.Error), connection.begin():
                    connection.execute(UNLOCK, {"key": LOCK_KEY})

    def is_due(self, every: timedelta) -> bool:
        with translate_errors(), self._engine.begin() as connection:
            return bool(connection.execute(IS_DUE, {"every": every}).scalar_one())

    def in_flight(self, most: int) -> int:
        with translate_errors(), self._engine.connect() as connection:
            parameters = {"consumer": SyncKratosIdentity.name, "most": most}
            return int(connection.execute(IN_FLIGHT, parameters).scalar_one())


class PostgresKratosStatus:
    """The KratosStatus port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def report(self) -> KratosReport:
        with snapshot(self._engine) as connection:
            return KratosReport(
                at=connection.execute(text("SELECT now()")).scalar_one(),
                drift=drift(connection),
                hooks=hook_activity(connection),
            )

    def past(self, before: datetime, most: int) -> Sequence[PastReconciliation]:
        with snapshot(self._engine) as connection:
            return past(connection, before, most)

    def unlisted(self, after: UUID, most: int, *, with_traits: bool = False) -> Unlisted:
        # A role that may not read traits can read the rest.
        statement = text(
            UNLISTED.format(traits="CAST(identity.traits AS text)" if with_traits else "NULL")
        )
        with snapshot(self._engine) as connection:
            rows = connection.execute(statement, {"after": after, "most": most + 1}).all()
        number = rows[0][0] if rows else 0
        found = [UnlistedIdentity(*row) for _, *row in rows[:most]]
        return Unlisted(number, found, len(rows) > most)


def begin_or_resume(connection: Connection, ids: IdRange) -> Run:
    """Give the newest run if it did not end and is not too old; else add one."""
    number, schema_urls = _held(connection, ids)
    row = connection.execute(UNENDED, {"within": RESUMED_WITHIN}).mappings().one_or_none()
    if row is not None:
        run_id, findings = row["id"], Findings.from_record({**row})
        place = Place(row["page_token"], row["last_id"], row["listed"])
        before = _before(connection, run_id)
        started_at = row["started_at"]
        return Run(run_id, ids, started_at, findings, before, schema_urls, place, resumed=True)
    run_id, started_at = connection.execute(BEGIN, {"held": number}).one()
    connection.execute(DELETE_OLD, {"run": run_id, "kept": KEPT})
    connection.execute(DELETE_UNLISTED, {"run": run_id - 1})
    findings, before = Findings(held=number), _before(connection, run_id)
    return Run(run_id, ids, started_at, findings, before, schema_urls)


def begin_dry(connection: Connection, ids: IdRange) -> Run:
    """Give a new run without a row."""
    number, schema_urls = _held(connection, ids)
    now = connection.execute(NOW).scalar_one()
    return Run(0, ids, now, Findings(held=number), _before(connection, None), schema_urls)


def drift(connection: Connection) -> Drift:
    """Give the newest runs, and whether one is running."""
    is_running = bool(connection.execute(IS_RUNNING, {"key": LOCK_KEY}).scalar_one())
    return Drift(past(connection, None, MOST_PAST), is_running)


def past(
    connection: Connection, before: datetime | None, most: int
) -> Sequence[PastReconciliation]:
    """Give the newest runs that began before then, or of all."""
    return [
        PastReconciliation(
            row["started_at"],
            row["seen_at"],
            row["ended_at"],
            row["outcome"],
            Findings.from_record({**row}),
        )
        for row in connection.execute(PAST, {"before": before, "most": most}).mappings()
    ]


def _held(connection: Connection, ids: IdRange) -> tuple[int, Sequence[str]]:
    number, schema_urls = connection.execute(HELD, {"first": ids.first, "last": ids.last}).one()
    return number, schema_urls


def _before(connection: Connection, run_id: int | None) -> datetime | None:
    before: datetime | None = connection.execute(BEFORE, {"id": run_id}).scalar_one()
    return before
