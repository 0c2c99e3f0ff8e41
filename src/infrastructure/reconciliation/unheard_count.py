"""How many differences of a page want for which webhook."""

from collections import Counter
from collections.abc import Collection
from datetime import datetime
from typing import Final
from uuid import UUID

import psycopg

from application.consumers.fetch_kratos_identity import FetchKratosIdentity
from application.consumers.sync_kratos_identity import SyncKratosIdentity
from application.unheard import ON_ITS_WAY, missing, stale
from domain.identity import Identity
from domain.kratos_identity import KratosIdentity
from infrastructure.binary_arrays import uuid_array

KEEPERS: Final = [SyncKratosIdentity.name, FetchKratosIdentity.name]
ON_THEIR_WAY: Final = b"""
    SELECT DISTINCT e.subject FROM kratos_sync.events e
    JOIN kratos_sync.deliveries d ON d.event_id = e.id AND d.consumer = ANY($2::text[])
    WHERE e.subject = ANY($1::uuid[])
"""


class UnheardCount:
    """Counts, as `application.unheard` tells, what is missed of those that may differ."""

    def __init__(
        self,
        cursor: "psycopg.RawCursor[tuple[object, ...]]",
        ids: Collection[UUID],
        before: datetime | None,
    ) -> None:
        """Look up for whom something was heard that is not consumed yet."""
        self.counts: Counter[str] = Counter()
        self._before = before
        self._on_their_way: frozenset[object] = frozenset()
        if ids:
            rows = cursor.execute(ON_THEIR_WAY, (uuid_array(ids), KEEPERS)).fetchall()
            self._on_their_way = frozenset(row[0] for row in rows)

    def add(
        self, identity: Identity, held: KratosIdentity | None, fields: Collection[str] | None
    ) -> None:
        """Count one that is missing (no fields), or differs in these."""
        if identity.id in self._on_their_way:
            self.counts[ON_ITS_WAY] += 1
        elif held is None or fields is None:
            self.counts.update(missing(identity, self._before))
        else:
            self.counts.update(stale(held, identity, fields))
