"""One reconciliation: what a page shows is compared, recorded and noted in one transaction."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import Connection, text
from uuid_utils.compat import uuid7

from application.ports.event_bus import Provenance
from application.ports.kratos import Page
from application.ports.reconciliation import (
    Difference,
    Findings,
    NobodyKnown,
    ReconciliationLost,
)
from domain.events import KratosIdentityGone, KratosIdentityUpdated
from infrastructure.database import driver_of, errors_in_our_words
from infrastructure.ledger.record import record_many
from infrastructure.reconciliation import runs, unseen
from infrastructure.reconciliation.comparison import FIRST, Differing, compare
from infrastructure.reconciliation.unheard_count import UnheardCount
from infrastructure.reconciliation.unseen import Stretch

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
            unheard = UnheardCount(cursor, [each.identity.id for each in new], self._before)
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
        with errors_in_our_words(), self._connection.begin():
            if not self._connection.execute(HAS_TURN, {"key": LOCK_KEY}).scalar_one():
                raise ReconciliationLost("the connection was lost, and with it the turn")
            yield self._connection


def gone_in_kratos(ids: Sequence[UUID]) -> list[Difference]:
    """Give the differences of those whom Kratos does not have."""
    return [Difference(identity_id, ()) for identity_id in ids]
