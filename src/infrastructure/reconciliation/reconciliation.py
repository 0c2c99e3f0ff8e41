"""Reconciliation runs in PostgreSQL: each step is one transaction."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError
from uuid_utils.compat import uuid7

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.drift import Drift
from kratos_sync.application.missed_webhooks import Differing, classify
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import Answer, Page
from kratos_sync.application.ports.reconciliation import (
    AnotherReconciliation,
    Difference,
    Findings,
    NoKnownIdentity,
    ReconciliationLost,
)
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.postgres.engine import driver_of, translate_errors
from kratos_sync.infrastructure.reconciliation import runs
from kratos_sync.infrastructure.reconciliation.comparison import FIRST, compare, pending_of
from kratos_sync.infrastructure.reconciliation.runs import Place, Run, Stretch

SOURCE: Final = "reconcile"
# Nothing else in the database may take advisory locks on this number.
LOCK_KEY: Final = 5_720_684_119
BYTES_PER_ID: Final = 16
NEWEST: Final = 30

LOCK: Final = text("SELECT pg_try_advisory_lock(:key)")
UNLOCK: Final = text("SELECT pg_advisory_unlock(:key)")
HAS_LOCK: Final = text("""
    SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
                   AND (classid::bigint << 32) + objid::bigint = :key)
""")
IS_RUNNING: Final = text("""
    SELECT EXISTS (
        SELECT FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (classid::bigint << 32) + objid::bigint = :key)
""")
KNOWS: Final = text("""
    SELECT EXISTS (SELECT FROM kratos_sync.kratos_identities
                   WHERE id = ANY(CAST(:ids AS uuid[])) AND deleted_at IS NULL)
""")
SAMPLE: Final = text("""
    (SELECT id FROM kratos_sync.kratos_identities WHERE deleted_at IS NULL AND id >= :random
     ORDER BY id LIMIT :most)
    UNION ALL
    (SELECT id FROM kratos_sync.kratos_identities WHERE deleted_at IS NULL AND id < :random
     ORDER BY id LIMIT :most)
    LIMIT :most
""")
RECORDED: Final = text("""
    SELECT dedupe_key FROM kratos_sync.events WHERE dedupe_key = ANY(CAST(:keys AS text[]))
""")
IN_FLIGHT: Final = text("""
    SELECT count(*) FROM (
        SELECT FROM kratos_sync.deliveries WHERE consumer = :consumer AND failed_at IS NULL
        LIMIT :most) AS pending
""")


class PostgresReconciliation:
    """The Reconciliation port, on the connection that holds the lock."""

    def __init__(
        self, connection: Connection, run: Run, schema_urls: Collection[str], *, resumed: bool
    ) -> None:
        self._connection = connection
        self._run_id = run.id
        self._place = run.place
        self._before = run.before
        self.started_at = run.started_at
        self.findings: Findings = run.findings
        self.schema_urls = schema_urls
        self.resumed = resumed
        self.is_same_kratos = False
        self.differences: Sequence[Difference] = []

    @property
    def token(self) -> str | None:
        return self._place.token

    @property
    def listed(self) -> bool:
        return self._place.listed

    def knows(self, ids: Sequence[UUID]) -> bool:
        with self._transaction() as connection:
            return bool(connection.execute(KNOWS, {"ids": list(ids)}).scalar_one())

    def compare_page(self, page: Page, at: datetime, most_unlisted: int) -> None:
        after, is_last = self._place.last_id or FIRST, page.next is None
        with self._transaction() as connection:
            cursor = psycopg.RawCursor(driver_of(connection))
            compared = compare(cursor, page.identities, after, at, is_last=is_last)
            stretch = Stretch(after, compared.upper, compared.ids, self.started_at)
            unlisted = self._keep_unlisted(connection, stretch)
            known = self.findings.known + compared.known
            is_unknown = compared.ids and not known and not self.is_same_kratos
            if is_unknown and self.findings.held > most_unlisted:
                raise NoKnownIdentity("Kratos' listing begins with nobody whom we hold")
            new = self._unrecorded(connection, compared.differing)
            pending = pending_of(cursor, [each.identity.id for each in new])
            differences = [Difference(each.identity.id, _fields(each)) for each in new]
            place = Place(page.next, compared.upper, is_last)
            findings = self.findings.with_page(
                len(compared.ids),
                compared.known,
                differences,
                unlisted,
                missed_webhooks=classify(new, pending, self._before),
                unreadable=compared.unreadable,
            )
            self._record(
                connection,
                [(self._key(each), each.identity.id, Answer(at, each.identity)) for each in new],
            )
            self._note(connection, place, findings)
        self._place, self.findings, self.differences = place, findings, differences

    def start_over(self) -> None:
        """Go back to the first page; what was recorded is not recorded again."""
        findings = self.findings.started_over()
        with self._transaction() as connection:
            connection.execute(runs.DELETE_UNLISTED, {"id": self._run_id})
            runs.note(connection, self._run_id, runs.BEGINNING, findings)
        self._place, self.findings, self.differences = runs.BEGINNING, findings, []

    def sample_ids(self, most: int) -> Sequence[UUID]:
        """Give those after a random id, and from the first id on if those are too few."""
        with self._transaction() as connection:
            parameters = {"random": uuid4(), "most": most}
            return list(connection.execute(SAMPLE, parameters).scalars())

    def unlisted(self, most: int) -> Sequence[UUID]:
        with self._transaction() as connection:
            return runs.next_unlisted(connection, self._run_id, most)

    def settle(self, deleted: Sequence[UUID], existing: Sequence[UUID], at: datetime) -> None:
        findings = replace(self.findings, deleted=self.findings.deleted + len(deleted))
        with self._transaction() as connection:
            key, nobody = f"{SOURCE}:{self._run_id}:gone", Answer(at, None)
            self._record(connection, [(f"{key}:{each}", each, nobody) for each in deleted])
            runs.settle(connection, self._run_id, [*deleted, *existing])
            runs.note(connection, self._run_id, self._place, findings)
        self.findings, self.differences = findings, [Difference(each, ()) for each in deleted]

    def end(self, outcome: str) -> None:
        with self._transaction() as connection:
            runs.end(connection, self._run_id, outcome)
        self.differences = []

    def _unrecorded(
        self, connection: Connection, differing: Sequence[Differing]
    ) -> Sequence[Differing]:
        """Leave out what was recorded before the run started over, and is not consumed yet."""
        keys = {self._key(each): each for each in differing}
        if keys:
            for recorded in connection.execute(RECORDED, {"keys": list(keys)}).scalars():
                del keys[recorded]
        return list(keys.values())

    def _record(self, connection: Connection, answers: Sequence[tuple[str, UUID, Answer]]) -> None:
        record_many(
            connection,
            [
                (answer.event(uuid7(), identity_id), Provenance(SOURCE, key))
                for key, identity_id, answer in answers
            ],
        )

    def _key(self, differing: Differing) -> str:
        """What makes a difference another one: identity, version held, and time of change."""
        identity, held = differing.identity, differing.held
        version = 0 if held is None else held.version
        return f"{SOURCE}:{self._run_id}:{identity.id}:{version}:{identity.updated_at}"

    def _keep_unlisted(self, connection: Connection, stretch: Stretch) -> int:
        return runs.keep_unlisted(connection, self._run_id, stretch)

    def _note(self, connection: Connection, place: Place, findings: Findings) -> None:
        runs.note(connection, self._run_id, place, findings)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Begin a transaction; a connection that was replaced by a new one has no lock."""
        with translate_errors(), self._connection.begin():
            if not self._connection.execute(HAS_LOCK, {"key": LOCK_KEY}).scalar_one():
                raise ReconciliationLost("the connection was lost, and with it the turn")
            yield self._connection


class DryReconciliation(PostgresReconciliation):
    """Compares in the same way, and writes nothing."""

    def __init__(
        self, connection: Connection, run: Run, schema_urls: Collection[str], *, resumed: bool
    ) -> None:
        super().__init__(connection, run, schema_urls, resumed=resumed)
        self._unlisted = bytearray()

    def unlisted(self, most: int) -> Sequence[UUID]:
        some = self._unlisted[: most * BYTES_PER_ID]
        starts = range(0, len(some), BYTES_PER_ID)
        return [UUID(bytes=bytes(some[start : start + BYTES_PER_ID])) for start in starts]

    def settle(self, deleted: Sequence[UUID], existing: Sequence[UUID], at: datetime) -> None:  # noqa: ARG002  # as the port
        self.findings = replace(self.findings, deleted=self.findings.deleted + len(deleted))
        self.differences = [Difference(each, ()) for each in deleted]
        del self._unlisted[: (len(deleted) + len(existing)) * BYTES_PER_ID]

    def start_over(self) -> None:
        """Never needed: a dry run begins at the first page."""
        raise AssertionError("a dry run is never resumed")

    def end(self, outcome: str) -> None:  # noqa: ARG002  # as the port
        self.differences = []

    def _keep_unlisted(self, connection: Connection, stretch: Stretch) -> int:
        found = runs.find_unlisted(connection, stretch)
        self._unlisted += found
        return len(found) // BYTES_PER_ID

    def _record(self, connection: Connection, answers: Sequence[tuple[str, UUID, Answer]]) -> None:
        """Record nothing."""

    def _note(self, connection: Connection, place: Place, findings: Findings) -> None:
        """Record nothing."""


class PostgresReconciliations:
    """The Reconciliations port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def begin(self, *, dry_run: bool) -> Iterator[PostgresReconciliation]:
        """Hold a session's advisory lock for as long as the context lasts.

        A pooler that shares sessions does not keep such locks: connect past it.
        """
        with translate_errors(), self._engine.connect() as connection:
            with connection.begin():
                if not connection.execute(LOCK, {"key": LOCK_KEY}).scalar_one():
                    raise AnotherReconciliation("another reconciliation is at work")
            try:
                yield self._begin(connection, dry_run=dry_run)
            finally:
                with suppress(SQLAlchemyError, psycopg.Error), connection.begin():
                    connection.execute(UNLOCK, {"key": LOCK_KEY})

    def _begin(self, connection: Connection, *, dry_run: bool) -> PostgresReconciliation:
        with connection.begin():
            held = runs.held(connection)
            if dry_run:
                run = runs.begin_dry(connection, held.number)
                return DryReconciliation(connection, run, held.schema_urls, resumed=False)
            unended = runs.unended(connection)
            run = unended or runs.begin(connection, held.number)
        resumed = unended is not None
        return PostgresReconciliation(connection, run, held.schema_urls, resumed=resumed)

    def is_due(self, every: timedelta) -> bool:
        with translate_errors(), self._engine.begin() as connection:
            return runs.is_due(connection, every)

    def in_flight(self, most: int) -> int:
        with translate_errors(), self._engine.connect() as connection:
            parameters = {"consumer": SyncKratosIdentity.name, "most": most}
            counted: int = connection.execute(IN_FLIGHT, parameters).scalar_one()
            return counted


def drift(connection: Connection) -> Drift:
    """Give the newest runs, and whether one is running."""
    is_running: bool = connection.execute(IS_RUNNING, {"key": LOCK_KEY}).scalar_one()
    return Drift(tuple(runs.past(connection, NEWEST)), is_running)


def _fields(differing: Differing) -> tuple[str, ...] | None:
    return None if differing.fields is None else tuple(differing.fields)
