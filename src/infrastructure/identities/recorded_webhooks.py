"""The webhooks on record about identities, in the ledger."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from kratos_sync.application.footprint import BATCH_BYTES
from kratos_sync.application.ports.event_bus import ANSWER_SOURCES
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.merging import ReceivedWebhook
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array
from kratos_sync.infrastructure.postgres.json import loads
from kratos_sync.infrastructure.postgres.transaction import Row, Transaction

# One recorded in the future was recorded before a clock was set back: it is not later than all.
_RECORDED: Final = """
    SELECT w.subject, w.recorded_at, {payload}, w.id
    FROM asked JOIN kratos_sync.events w ON w.subject = asked.id AND w.recorded_at > asked.at
    WHERE w.recorded_at <= clock_timestamp()
      AND w.name = 'kratos_identity.updated' AND w.source = 'webhook'
      AND w.erased_at IS NULL
    ORDER BY w.subject, w.recorded_at, w.id
"""
# Those beyond what a batch may take are left to be read one by one, when their turn has come.
_BOUNDED: Final = f"""
    CASE WHEN sum(coalesce(w.footprint, 40 * octet_length(w.payload::text))::bigint)
              OVER (ORDER BY w.subject, w.recorded_at, w.id) <= {BATCH_BYTES}
         THEN w.payload::text END
"""
PAYLOAD: Final = "SELECT payload::text FROM kratos_sync.events WHERE id = $1::uuid"
NOW: Final = "SELECT clock_timestamp()"
AFTER: Final = f"""
    WITH asked (id, at) AS (SELECT id, $2::timestamptz FROM unnest($1::uuid[]) AS id)
    {_RECORDED.format(payload=_BOUNDED)}
"""  # noqa: S608  # all of it is ours
# After the newest answer about each identity that is to be consumed.
AFTER_ANSWERS: Final = f"""
    WITH asked (id, at) AS MATERIALIZED (
        SELECT subject, max(occurred_at) FROM kratos_sync.events
        WHERE id = ANY($1::uuid[]) AND name = 'kratos_identity.updated' AND source = ANY($2::text[])
        GROUP BY subject
    ) {_RECORDED.format(payload=_BOUNDED)}
"""  # noqa: S608  # all of it is ours


class PostgresRecordedWebhooks:
    """The RecordedWebhooks port, in one transaction: it looks once for all answers of a batch.

    However many and large they are, it holds no more of them than a batch may take, and one.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._rows: Mapping[UUID, Sequence[Row]] | None = None
        self._now: datetime | None = None

    def now(self) -> datetime:
        """Ask the database for the time, once."""
        if self._now is None:
            ((self._now,),) = self._transaction.fetch(NOW, ())
        return self._now

    def after(self, identity_id: UUID, moment: datetime) -> Iterator[ReceivedWebhook]:
        """Give those after the moment, and after any later answer of the same batch."""
        if self._rows is None:
            parameters = [uuid_array(self._transaction.event_ids), sorted(ANSWER_SOURCES)]
            rows: dict[UUID, list[Row]] = {}
            for row in self._transaction.fetch(AFTER_ANSWERS, parameters):
                rows.setdefault(row[0], []).append(row)
            self._rows = rows
        for _, recorded_at, payload, event_id in self._rows.get(identity_id, ()):
            if recorded_at > moment:
                yield _received(recorded_at, payload or self._payload(event_id))

    def _payload(self, event_id: UUID) -> str:
        ((payload,),) = self._transaction.fetch(PAYLOAD, [event_id])
        text: str = payload
        return text


class LaterWebhooks:
    """The webhooks about some identities that were recorded after one moment.

    It holds no more of their payloads than a batch may take; the others are read when they are
    needed. ``fetch`` runs a statement with placeholders ``$1``, and gives its rows.
    """

    def __init__(
        self,
        fetch: Callable[[str, Sequence[object]], Sequence[Row]],
        ids: Iterable[UUID],
        moment: datetime,
    ) -> None:
        self._fetch = fetch
        self._rows: dict[UUID, list[Row]] = {}
        for row in fetch(AFTER, [uuid_array(ids), moment]):
            self._rows.setdefault(row[0], []).append(row)

    def of(self, identity_id: UUID) -> Iterator[ReceivedWebhook]:
        """Give those of one identity, to be gone through once."""
        for _, recorded_at, payload, event_id in self._rows.get(identity_id, ()):
            yield _received(recorded_at, payload or self._fetch(PAYLOAD, [event_id])[0][0])


def _received(recorded_at: datetime, payload: str) -> ReceivedWebhook:
    document: Any = loads(payload)
    return ReceivedWebhook(Identity.from_kratos(document["identity"]), recorded_at)
