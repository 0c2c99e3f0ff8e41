"""One reconciliation run in PostgreSQL: each step is one transaction."""

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from sqlalchemy import Connection, text
from uuid_utils.compat import uuid7

from kratos_sync.application.missed_webhooks import Differing, classify
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import Answer, Page
from kratos_sync.application.ports.reconciliation import (
    MOST_KEPT_UNLISTED,
    Difference,
    Findings,
    NoKnownIdentity,
    ReconciliationLost,
)
from kratos_sync.domain.id_range import IdRange
from kratos_sync.domain.identity import Identity
from kratos_sync.infrastructure.ledger.recording import RECORD_ANSWERS, record_many
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array
from kratos_sync.infrastructure.postgres.engine import driver_of, translate_errors
from kratos_sync.infrastructure.reconciliation.comparison import FIRST, compare, pending_of

SOURCE: Final = "reconcile"
# Nothing else in the database may take advisory locks on this number.
LOCK_KEY: Final = 5_720_684_119
BYTES_PER_ID: Final = 16

HAS_LOCK: Final = text("""
    SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
                   AND (classid::bigint << 32) + objid::bigint = :key)
""")
KNOWS: Final = text("""
    SELECT EXISTS (SELECT FROM kratos_sync.kratos_identities
                   WHERE id = ANY(CAST(:ids AS uuid[])) AND deleted_at IS NULL)
""")
# Those after a random id, and from the first id on if those are too few.
SAMPLE: Final = text("""
    (SELECT id FROM kratos_sync.kratos_identities
     WHERE deleted_at IS NULL AND id BETWEEN :random AND :last ORDER BY id LIMIT :most)
    UNION ALL
    (SELECT id FROM kratos_sync.kratos_identities
     WHERE deleted_at IS NULL AND id >= :first AND id < :random ORDER BY id LIMIT :most)
    LIMIT :most
""")
RECORDED: Final = text("""
    SELECT dedupe_key FROM kratos_sync.events WHERE dedupe_key = ANY(CAST(:keys AS text[]))
""")
_UNLISTED: Final = """
    FROM kratos_sync.kratos_identities
    WHERE id > :after AND id <= :upper AND id BETWEEN :first AND :last
      AND id <> ALL (CAST(:listed AS uuid[]))
      AND deleted_at IS NULL AND coalesce(created_at, synced_at) < :began
"""
KEEP_UNLISTED: Final = text("INSERT INTO kratos_sync.unseen_identities SELECT :run, id" + _UNLISTED)
FIND_UNLISTED: Final = text(
    "SELECT coalesce(string_agg(uuid_send(id), ''::bytea ORDER BY id), ''::bytea)" + _UNLISTED
)
NEXT_UNLISTED: Final = text("""
    SELECT identity_id FROM kratos_sync.unseen_identities
    WHERE reconciliation = :run AND identity_id BETWEEN :first AND :last
    ORDER BY identity_id LIMIT :most
""")
SETTLE: Final = text("""
    DELETE FROM kratos_sync.unseen_identities
    WHERE reconciliation = :run AND identity_id = ANY(CAST(:ids AS uuid[]))
""")
DELETE_UNLISTED: Final = text(
    "DELETE FROM kratos_sync.unseen_identities WHERE reconciliation <= :run"
)
NOTE: Final = text("""
    UPDATE kratos_sync.reconciliations
    SET seen_at = clock_timestamp(), page_token = :token, last_id = :last_id, listed = :listed,
        pages = :pages, identities = :identities, known = :known, missing = :missing,
        stale = :stale, unseen = :unseen, gone = :gone, fields = :fields, unheard = :unheard,
        unreadable = :unreadable
    WHERE id = :run
""")
END: Final = text("""
    UPDATE kratos_sync.reconciliations
    SET ended_at = clock_timestamp(), outcome = :outcome, page_token = NULL WHERE id = :run
""")


class Place(NamedTuple):
    """How far a listing was read: the page to ask for, the last id, and whether that was all."""

    token: str | None = None
    last_id: UUID | None = None
    listed: bool = False


class Run(NamedTuple):
    """A run that begins or continues; ``before`` is when the last completed one began, if any."""

    id: int
    ids: IdRange
    started_at: datetime
    findings: Findings
    before: datetime | None
    schema_urls: Collection[str]
    place: Place = Place()
    resumed: bool = False


class PostgresReconciliation:
    """The Reconciliation port, on the connection that holds the lock."""

    def __init__(self, connection: Connection, run: Run) -> None:
        self._connection = connection
        self._run_id, self._before, self._place = run.id, run.before, run.place
        self.ids, self.started_at, self.resumed = run.ids, run.started_at, run.resumed
        self.findings, self.schema_urls = run.findings, run.schema_urls
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
            known = self.findings.known + compared.known
            is_unknown = compared.ids and not known and not self.is_same_kratos
            if is_unknown and self.findings.held > most_unlisted:
                raise NoKnownIdentity("Kratos' listing begins with no identity that is held here")
            stretch = {"after": after, "upper": compared.upper, "listed": uuid_array(compared.ids)}
            stretch |= {"first": self.ids.first, "last": self.ids.last, "began": self.started_at}
            unlisted = self._keep_unlisted(connection, stretch)
            new = self._unrecorded(connection, compared.differing)
            pending = pending_of(cursor, [each.identity.id for each in new])
            differences = [Difference(each.identity.id, each.fields) for each in new]
            findings = self.findings.with_page(
                len(compared.ids),
                compared.known,
                differences,
                unlisted=unlisted,
                unreadable=compared.unreadable,
                missed_webhooks=classify(new, pending, self._before),
            )
            self._record(
                connection, {self._key(each): (each.identity.id, each.identity) for each in new}, at
            )
            place = Place(page.next, compared.upper, is_last)
            self._note(connection, place, findings)
        self._place, self.findings, self.differences = place, findings, differences

    def start_over(self) -> None:
        """Go back to the first page; what was recorded is not recorded again."""
        place, findings = Place(), self.findings.started_over()
        with self._transaction() as connection:
            connection.execute(DELETE_UNLISTED, {"run": self._run_id})
            self._note(connection, place, findings)
        self._place, self.findings, self.differences = place, findings, []

    def sample_ids(self, most: int) -> Sequence[UUID]:
        first, last = self.ids.first, self.ids.last
        random = UUID(int=first.int + secrets.randbelow(last.int - first.int + 1))
        parameters = {"random": random, "most": most, "first": first, "last": last}
        with self._transaction() as connection:
            return list(connection.execute(SAMPLE, parameters).scalars())

    def unlisted(self, most: int) -> Sequence[UUID]:
        with self._transaction() as connection:
            ids = {"first": self.ids.first, "last": self.ids.last}
            parameters = {"run": self._run_id, "most": most, **ids}
            return list(connection.execute(NEXT_UNLISTED, parameters).scalars())

    def settle(self, deleted: Sequence[UUID], existing: Sequence[UUID], at: datetime) -> None:
        findings = replace(self.findings, deleted=self.findings.deleted + len(deleted))
        key = f"{SOURCE}:{self._run_id}:gone"
        with self._transaction() as connection:
            self._record(connection, {f"{key}:{each}": (each, None) for each in deleted}, at)
            self._remove_unlisted(connection, [*deleted, *existing])
            self._note(connection, self._place, findings)
        self.findings, self.differences = findings, [Difference(each, ()) for each in deleted]

    def end(self, outcome: str) -> None:
        with self._transaction() as connection:
            connection.execute(END, {"run": self._run_id, "outcome": outcome})
            # Those of a refused run are kept until the next one: somebody decides about them.
            is_decided = outcome == "completed" or self.findings.unlisted > MOST_KEPT_UNLISTED
            last = self._run_id if is_decided else self._run_id - 1
            connection.execute(DELETE_UNLISTED, {"run": last})
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

    def _key(self, differing: Differing) -> str:
        """What makes a difference another one: identity, version held, and time of change."""
        identity, held = differing.identity, differing.held
        version = 0 if held is None else held.version
        return f"{SOURCE}:{self._run_id}:{identity.id}:{version}:{identity.updated_at}"

    def _record(
        self,
        connection: Connection,
        found: Mapping[str, tuple[UUID, Identity | None]],
        at: datetime,
    ) -> None:
        """Record what Kratos answered then, each by its dedupe key."""
        record_many(
            connection,
            [
                (Answer(at, identity).event(uuid7(), identity_id), Provenance(SOURCE, key))
                for key, (identity_id, identity) in found.items()
            ],
            RECORD_ANSWERS,
        )

    def _note(self, connection: Connection, place: Place, findings: Findings) -> None:
        """Record how far the run is, and what it has found."""
        parameters = findings.to_record() | place._asdict() | {"run": self._run_id}
        parameters |= {name: Jsonb(parameters[name]) for name in ("fields", "unheard")}
        connection.execute(NOTE, parameters)

    def _keep_unlisted(self, connection: Connection, stretch: Mapping[str, object]) -> int:
        """Keep those between two ids that are not listed; give their number."""
        return connection.execute(KEEP_UNLISTED, {"run": self._run_id, **stretch}).rowcount

    def _remove_unlisted(self, connection: Connection, ids: Sequence[UUID]) -> None:
        connection.execute(SETTLE, {"run": self._run_id, "ids": uuid_array(ids)})

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Begin a transaction; a connection that was replaced by a new one has no lock."""
        with translate_errors(), self._connection.begin():
            if not self._connection.execute(HAS_LOCK, {"key": LOCK_KEY}).scalar_one():
                raise ReconciliationLost("the connection was lost, and with it the lock")
            yield self._connection


class DryReconciliation(PostgresReconciliation):
    """Compares in the same way, and writes nothing. It is never resumed, nor started over."""

    def __init__(self, connection: Connection, run: Run) -> None:
        super().__init__(connection, run)
        self._unlisted = bytearray()
        """The ids, 16 bytes each: a million take no more room than that."""

    def unlisted(self, most: int) -> Sequence[UUID]:
        some = bytes(self._unlisted[: most * BYTES_PER_ID])
        starts = range(0, len(some), BYTES_PER_ID)
        return [UUID(bytes=some[start : start + BYTES_PER_ID]) for start in starts]

    def end(self, outcome: str) -> None:  # noqa: ARG002  # as the port
        self.differences = []

    def _record(self, *_: object) -> None:
        """Record nothing."""

    def _note(self, *_: object) -> None:
        """Record nothing."""

    def _keep_unlisted(self, connection: Connection, stretch: Mapping[str, object]) -> int:
        found: bytes = connection.execute(FIND_UNLISTED, stretch).scalar_one()
        self._unlisted += found
        return len(found) // BYTES_PER_ID

    def _remove_unlisted(self, connection: Connection, ids: Sequence[UUID]) -> None:  # noqa: ARG002
        del self._unlisted[: len(ids) * BYTES_PER_ID]
