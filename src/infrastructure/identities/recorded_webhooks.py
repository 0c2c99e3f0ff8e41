"""The webhooks on record about identities, in the ledger."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from application.ports.event_bus import ANSWER_SOURCES
from domain.identity import Identity
from domain.recorded_webhooks import ReceivedWebhook
from infrastructure.binary_arrays import uuid_array
from infrastructure.json_columns import loads
from infrastructure.transaction import Transaction

# One recorded in the future was recorded before a clock was set back: it is not later than all.
_RECORDED: Final = """
    SELECT w.subject, w.recorded_at, w.payload::text
    FROM asked JOIN kratos_sync.events w ON w.subject = asked.id AND w.recorded_at > asked.at
    WHERE w.recorded_at <= clock_timestamp()
      AND w.name = 'kratos_identity.updated' AND w.source = 'webhook'
      AND w.erased_at IS NULL
    ORDER BY w.subject, w.recorded_at, w.id
"""
NOW: Final = "SELECT clock_timestamp()"
AFTER: Final = f"""
    WITH asked (id, at) AS (SELECT id, $2::timestamptz FROM unnest($1::uuid[]) AS id) {_RECORDED}
"""  # noqa: S608  # all of it is ours
# After the newest answer about each identity that is to be consumed.
AFTER_ANSWERS: Final = f"""
    WITH asked (id, at) AS MATERIALIZED (
        SELECT subject, max(occurred_at) FROM kratos_sync.events
        WHERE id = ANY($1::uuid[]) AND name = 'kratos_identity.updated' AND source = ANY($2::text[])
        GROUP BY subject
    ) {_RECORDED}
"""  # noqa: S608  # all of it is ours


class PostgresRecordedWebhooks:
    """The RecordedWebhooks port, in one transaction: it looks once for all answers of a batch."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._webhooks: Mapping[UUID, Sequence[ReceivedWebhook]] | None = None
        self._now: datetime | None = None

    def now(self) -> datetime:
        """Ask the database for the time, once."""
        if self._now is None:
            ((self._now,),) = self._transaction.fetch(NOW, ())
        return self._now

    def after(self, identity_id: UUID, moment: datetime) -> Sequence[ReceivedWebhook]:
        """Give those after the moment, and after any later answer of the same batch."""
        if self._webhooks is None:
            parameters = [uuid_array(self._transaction.event_ids), sorted(ANSWER_SOURCES)]
            self._webhooks = by_identity(self._transaction.fetch(AFTER_ANSWERS, parameters))
        recorded = self._webhooks.get(identity_id, ())
        return [each for each in recorded if each.recorded_at > moment]


def by_identity(rows: Iterable[Sequence[Any]]) -> dict[UUID, list[ReceivedWebhook]]:
    """Give the webhooks of each identity, from the rows of AFTER or AFTER_ANSWERS."""
    webhooks: dict[UUID, list[ReceivedWebhook]] = {}
    for subject, recorded_at, payload in rows:
        document: Any = loads(payload)
        identity = Identity.from_kratos(document["identity"])
        webhooks.setdefault(subject, []).append(ReceivedWebhook(identity, recorded_at))
    return webhooks
