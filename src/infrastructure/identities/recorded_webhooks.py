"""The webhooks recorded about identities, in the ledger."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from kratos_sync.application.footprint import BATCH_BYTES
from kratos_sync.application.ports.event_bus import ANSWER_SOURCES
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.merging import ReceivedWebhook
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array
from kratos_sync.infrastructure.postgres.json import loads
from kratos_sync.infrastructure.postgres.transaction import Row, Transaction

Fetch: TypeAlias = Callable[[str, Sequence[object]], Sequence[Row]]

# One recorded in the future was recorded before a clock was set back: it is not later than all.
# OFFSET 0: found by the index, although the planner may believe that the table is empty.
_RECORDED: Final = """
    SELECT w.subject, w.recorded_at, {payload}, w.id
    FROM asked CROSS JOIN LATERAL (
        SELECT * FROM kratos_sync.events
        WHERE subject = asked.id AND recorded_at > asked.at AND recorded_at <= clock_timestamp()
          AND name = 'kratos_identity.updated' AND source = 'webhook' AND erased_at IS NULL
        OFFSET 0
    ) w
    ORDER BY w.subject, w.recorded_at, w.id
"""
# Payloads beyond what a batch may take are read one by one, when they are needed.
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
# After the newest answer about each identity in the batch.
AFTER_ANSWERS: Final = f"""
    WITH asked (id, at) AS MATERIALIZED (
        SELECT subject, max(occurred_at) FROM (
            SELECT subject, occurred_at FROM kratos_sync.events
            WHERE id = ANY($1::uuid[]) AND name = 'kratos_identity.updated'
              AND source = ANY($2::text[])
            OFFSET 0
        ) AS answer
        GROUP BY subject
    ) {_RECORDED.format(payload=_BOUNDED)}
"""  # noqa: S608  # all of it is ours


class SelectedWebhooks:
    """The webhooks that a statement selects, by identity.

    However many and large they are, it holds no more of their payloads than a batch may take, and
    one. ``fetch`` runs a statement with placeholders ``$1``, and gives its rows.
    """

    def __init__(self, fetch: Fetch, statement: str, parameters: Sequence[object]) -> None:
        self._fetch = fetch
        self._rows: dict[UUID, list[Row]] = {}
        for row in fetch(statement, parameters):
            self._rows.setdefault(row[0], []).append(row)

    def of(self, identity_id: UUID, after: datetime | None = None) -> Iterator[ReceivedWebhook]:
        """Give those of one identity, or of them the later ones, to be iterated once."""
        for _, recorded_at, payload, event_id in self._rows.get(identity_id, ()):
            if after is None or recorded_at > after:
                document: Any = loads(payload or self._fetch(PAYLOAD, [event_id])[0][0])
                yield ReceivedWebhook(Identity.from_kratos(document["identity"]), recorded_at)


def later_webhooks(fetch: Fetch, ids: Iterable[UUID], moment: datetime) -> SelectedWebhooks:
    """The webhooks about some identities that were recorded after one moment."""
    return SelectedWebhooks(fetch, AFTER, [uuid_array(ids), moment])


class PostgresRecordedWebhooks:
    """The RecordedWebhooks port, in one transaction: one query serves all answers of a batch."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._webhooks: SelectedWebhooks | None = None
        self._now: datetime | None = None

    def now(self) -> datetime:
        """Ask the database for the time, once."""
        if self._now is None:
            ((self._now,),) = self._transaction.fetch(NOW, ())
        return self._now

    def after(self, identity_id: UUID, moment: datetime) -> Iterator[ReceivedWebhook]:
        """Give those after the moment, and after any later answer of the same batch."""
        if self._webhooks is None:
            parameters = [uuid_array(self._transaction.event_ids), sorted(ANSWER_SOURCES)]
            self._webhooks = SelectedWebhooks(self._transaction.fetch, AFTER_ANSWERS, parameters)
        return self._webhooks.of(identity_id, moment)
