"""The collection of identities in PostgreSQL."""

from collections.abc import Sequence
from copy import copy
from typing import Any
from uuid import UUID

from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.domain.events import DomainEvent
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.infrastructure.identities.rows import LOAD, STORE, from_row, to_arrays
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array
from kratos_sync.infrastructure.postgres.transaction import Transaction

# A row that does not exist cannot be locked: its id is, against others that add the same one.
WAIT = "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS key"


class PostgresKratosIdentities:
    """The KratosIdentities port, in one transaction.

    The first ``find`` loads and locks all subjects of the transaction's events, in the order of
    ids, so that overlapping batches cannot deadlock; ``flush`` writes all changes in one statement.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._identities: dict[UUID, KratosIdentity] = {}
        self._stored_versions: dict[UUID, int] = {}
        self._looked_up: set[UUID] = set()
        self._rows: dict[UUID, Sequence[Any]] = {}
        self._before: dict[UUID, KratosIdentity | None] = {}
        transaction.join(self)

    def find(self, identity_id: UUID) -> KratosIdentity | None:
        """Give the identity, the same object each time, or None."""
        if identity_id not in self._looked_up:
            self._load({identity_id, *self._transaction.subjects} - self._looked_up)
        identity = self._identities.get(identity_id)
        if identity is not None and identity_id not in self._before:
            # Nearly always it is as loaded, and can be read from its row again.
            as_loaded = identity_id in self._rows and not identity.changed
            self._before[identity_id] = None if as_loaded else copy(identity)
        return identity

    def add(self, identity: KratosIdentity) -> None:
        self._looked_up.add(identity.id)
        self._before.setdefault(identity.id)
        self._identities[identity.id] = identity

    def savepoint(self) -> None:
        """Remember each identity as it is when it is next found."""
        self._before.clear()

    def roll_back_to_savepoint(self) -> None:
        """Restore the identities that were found since."""
        for identity_id, before in self._before.items():
            if before is not None:
                self._identities[identity_id] = before
            elif identity_id in self._rows:
                self._identities[identity_id] = from_row(self._rows[identity_id])
            else:
                del self._identities[identity_id]
        self._before.clear()

    def flush(self) -> None:
        """Write what changed. Raises ConcurrencyConflict if another transaction was first."""
        changed = sorted(
            (
                identity
                for identity in self._identities.values()
                if identity.changed or identity.id not in self._stored_versions
            ),
            key=lambda identity: identity.id,
        )
        if not changed:
            return
        versions = [self._stored_versions.get(each.id, 0) for each in changed]
        stored = self._transaction.run(STORE, to_arrays(changed, versions))
        if stored != len(changed):
            raise ConcurrencyConflict("an identity was added or changed meanwhile")
        for identity in changed:
            identity.mark_stored()
            self._stored_versions[identity.id] = identity.version

    def collect_events(self) -> list[DomainEvent]:
        return [
            event for identity in self._identities.values() for event in identity.collect_events()
        ]

    def _load(self, ids: set[UUID]) -> None:
        self._looked_up |= ids
        if new := self._lock_and_read(ids):
            keys = (int.from_bytes(each.bytes[:8], signed=True) for each in new)
            self._transaction.fetch(WAIT, [sorted(keys)])
            self._lock_and_read(new)

    def _lock_and_read(self, ids: set[UUID]) -> set[UUID]:
        """Give the ids that have no row."""
        for row in self._transaction.fetch(LOAD, [uuid_array(ids)]):
            identity = from_row(row)
            self._identities[identity.id] = identity
            self._rows[identity.id] = row
            self._stored_versions[identity.id] = identity.version
        return ids - self._identities.keys()
