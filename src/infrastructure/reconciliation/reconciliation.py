"""One reconciliation: what a page shows is compared, recorded and noted in one transaction."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError
from uuid_utils.compat import uuid7

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.drift import Drift
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import Page
from kratos_sync.application.ports.reconciliation import (
    AnotherReconciliation,
    Difference,
    Findings,
    NobodyKnown,
    PastReconciliation,
    ReconciliationLost,
)
from kratos_sync.domain.events import KratosIdentityGone, KratosIdentityUpdated
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.postgres.engine import driver_of, translate_errors
from kratos_sync.infrastructure.reconciliation import comparison as unseen
from kratos_sync.infrastructure.reconciliation import runs
from kratos_sync.infrastructure.reconciliation.comparison import (
    BYTES_PER_ID,
    FIRST,
    Differing,
    MissedWebhookCount,
    Stretch,
    compare,
)

SOURCE: Final = "reconcile"
# Any number does, as long as nothing else in the database takes advisory locks on it.
LOCK_KEY: Final = 5_720_684_119

HAS_TURN: Final = text("""
    SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
                   AND (classid::bigint << 32) + objid::bigint = :key)
""")
KNOWS: Final = text("""
    SELECT EXISTS (SELECT FROM kratos_sync.kratos_identities
                   WHERE id = ANY(CAST(:ids AS uuid[])) AND deleted_at IS NULL)
""")
SOME_HELD: Final = text("""
    (SELECT id FROM kratos_sync.kratos_identities WHERE deleted_at IS NULL AND id >= :chance
     ORDER BY id LIMIT :most)
    UNION ALL
    (SELECT id FROM kratos_sync.kratos_identities WHERE deleted_at IS NULL AND id < :chance
     ORDER BY id LIMIT :most)
    LIMIT :most
""")
TOLD: Final = text("""
    SELECT dedupe_key FROM kratos_sync.events WHERE dedupe_key = ANY(CAST(:keys AS text[]))
""")


class PostgresReconciliation:
    """The port of that name: each step is one transaction."""

    def __init__(
        self, connection: Connection, run: runs.Run, schema_urls: Collection[str], *, resumed: bool
    ) -> None:
        self._connection = connection
        self._run_id = run.id
        self._place = run.place
        self.started_at = run.started_at
        self.findings: Findings = run.findings
        self.schema_urls = schema_urls
        self.resumed = resumed
        self.is_ours = False
        self.differences: Sequence[Difference] = []
        self._before = run.before

    @property
    def unreadable(self) -> int:
        """How many cannot be read."""
        return self.findings.unreadable

    @property
    def token(self) -> str | None:
        """The page to ask for next."""
        return self._place.token

    @property
    def listed(self) -> bool:
        """Whether the last page has been taken."""
        return self._place.listed

    def knows(self, ids: Sequence[UUID]) -> bool:
        """Look for the first that is."""
        with self._transaction() as connection:
            return bool(connection.execute(KNOWS, {"ids": list(ids)}).scalar_one())

    def take(self, page: Page, at: datetime, most_unseen: int) -> None:
        """Compare a page, and record what differs."""
        after, is_last = self._place.last_id or FIRST, page.next is None
        with self._transaction() as connection:
            cursor = psycopg.RawCursor(driver_of(connection))
            compared = compare(cursor, page.identities, after, at, is_last=is_last)
            stretch = Stretch(after, compared.upper, compared.ids, self.started_at)
            unlisted = self._keep_unseen(connection, stretch)
            known = self.findings.known + compared.known
            is_strange = compared.ids and not known and not self.is_ours
            if is_strange and self.findings.held > most_unseen:
                raise NobodyKnown("Kratos' listing begins with nobody whom we hold")
            new = self._new(connection, compared.differing)
            unheard = MissedWebhookCount(cursor, [each.identity.id for each in new], self._before)
            for each in new:
                unheard.add(each.identity, each.held, each.difference.fields)
            self._tell(connection, new, at)
            place = runs.Place(page.next, compared.upper, is_last)
            findings = self.findings.with_page(
                len(compared.ids),
                compared.known,
                [each.difference for each in new],
                unlisted,
                unheard=unheard.counts,
                unreadable=compared.unreadable,
            )
            self._note(connection, place, findings)
        self._place, self.findings = place, findings
        self.differences = [each.difference for each in new]

    def start_over(self) -> None:
        """Go back to the first page; what was recorded is not recorded again."""
        kept, place = self.findings, runs.Place(None, None, listed=False)
        findings = replace(kept, pages=0, identities=0, known=0, unseen=0, unreadable=0)
        with self._transaction() as connection:
            connection.execute(runs.FORGET_UNSEEN, {"id": self._run_id})
            runs.note(connection, self._run_id, place, findings)
        self._place, self.findings, self.differences = place, findings, []

    def some_held(self, most: int) -> Sequence[UUID]:
        """Give some with ids after one by chance, and from the first on if those are too few."""
        with self._transaction() as connection:
            parameters = {"chance": uuid4(), "most": most}
            return list(connection.execute(SOME_HELD, parameters).scalars())

    def unseen(self, most: int) -> Sequence[UUID]:
        """Give some, in the order of their ids."""
        with self._transaction() as connection:
            return unseen.some(connection, self._run_id, most)

    def settle(self, gone: Sequence[UUID], there: Sequence[UUID], at: datetime) -> None:
        """Record that some are gone, and forget them all."""
        findings = replace(self.findings, gone=self.findings.gone + len(gone))
        with self._transaction() as connection:
            key = f"{SOURCE}:{self._run_id}:gone"
            told = [
                (KratosIdentityGone(uuid7(), at, each), Provenance(SOURCE, f"{key}:{each}"))
                for each in gone
            ]
            record_many(connection, told)
            unseen.settle(connection, self._run_id, [*gone, *there])
            runs.note(connection, self._run_id, self._place, findings)
        self.findings, self.differences = findings, gone_in_kratos(gone)

    def end(self, outcome: str) -> None:
        """Note the end."""
        with self._transaction() as connection:
            runs.end(connection, self._run_id, outcome)
        self.differences = []

    def _new(self, connection: Connection, differing: Sequence[Differing]) -> Sequence[Differing]:
        """Leave out what was told before it started over, and is not consumed yet."""
        keys = {self._key(each): each for each in differing}
        if keys:
            for known in connection.execute(TOLD, {"keys": list(keys)}).scalars():
                del keys[known]
        return list(keys.values())

    def _tell(self, connection: Connection, new: Sequence[Differing], at: datetime) -> None:
        told = [
            (
                KratosIdentityUpdated(uuid7(), at, each.identity),
                Provenance(SOURCE, self._key(each)),
            )
            for each in new
        ]
        record_many(connection, told)

    def _key(self, differing: Differing) -> str:
        """What tells a difference from others: who, as we hold them, and how recently changed."""
        identity, held = differing.identity, differing.held
        version = 0 if held is None else held.version
        return f"{SOURCE}:{self._run_id}:{identity.id}:{version}:{identity.updated_at}"

    def _keep_unseen(self, connection: Connection, stretch: Stretch) -> int:
        return unseen.keep(connection, self._run_id, stretch)

    def _note(self, connection: Connection, place: runs.Place, findings: Findings) -> None:
        runs.note(connection, self._run_id, place, findings)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction on the connection that has the turn; a new one in its place has not."""
        with translate_errors(), self._connection.begin():
            if not self._connection.execute(HAS_TURN, {"key": LOCK_KEY}).scalar_one():
                raise ReconciliationLost("the connection was lost, and with it the turn")
            yield self._connection


def gone_in_kratos(ids: Sequence[UUID]) -> list[Difference]:
    """Give the differences of those whom Kratos does not have."""
    return [Difference(identity_id, ()) for identity_id in ids]


class DryReconciliation(PostgresReconciliation):
    """Compares in the same way, and writes nothing."""

    def __init__(
        self, connection: Connection, run: runs.Run, schema_urls: Collection[str], *, resumed: bool
    ) -> None:
        super().__init__(connection, run, schema_urls, resumed=resumed)
        self._unsettled = bytearray()

    def unseen(self, most: int) -> Sequence[UUID]:
        """Give some that were not settled."""
        some = self._unsettled[: most * BYTES_PER_ID]
        starts = range(0, len(some), BYTES_PER_ID)
        return [UUID(bytes=bytes(some[start : start + BYTES_PER_ID])) for start in starts]

    def settle(self, gone: Sequence[UUID], there: Sequence[UUID], at: datetime) -> None:  # noqa: ARG002  # as the port
        """Count those that are gone."""
        self.findings = replace(self.findings, gone=self.findings.gone + len(gone))
        self.differences = gone_in_kratos(gone)
        del self._unsettled[: (len(gone) + len(there)) * BYTES_PER_ID]

    def start_over(self) -> None:
        """It began here, so there is nothing from before."""
        raise AssertionError("a dry reconciliation is never resumed")

    def end(self, outcome: str) -> None:  # noqa: ARG002  # as the port
        """Forget it."""
        self.differences = []

    def _tell(self, connection: Connection, new: Sequence[Differing], at: datetime) -> None:
        """Nobody is told."""

    def _keep_unseen(self, connection: Connection, stretch: Stretch) -> int:
        found = unseen.ids(connection, stretch)
        self._unsettled += found
        return len(found) // BYTES_PER_ID

    def _note(self, connection: Connection, place: runs.Place, findings: Findings) -> None:
        """Nothing is noted."""


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
        with translate_errors(), self._engine.connect() as connection:
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
        with translate_errors(), self._engine.begin() as connection:
            return runs.is_due(connection, every)

    def in_flight(self, most: int) -> int:
        """Count what the consumer that keeps the copies owes."""
        with translate_errors(), self._engine.connect() as connection:
            parameters = {"consumer": SyncKratosIdentity.name, "most": most}
            counted: int = connection.execute(IN_HAND, parameters).scalar_one()
            return counted


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
