"""Recording events with their deliveries: many of them in one statement."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Self

import psycopg
from sqlalchemy import Connection

from kratos_sync.application.footprint import footprint_of
from kratos_sync.application.ports.event_bus import Provenance, Publishable, UnreadEvent
from kratos_sync.application.subscriptions import consumers_of
from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.postgres.binary_arrays import (
    INT4_OID,
    JSON_OID,
    NULL,
    TEXT_OID,
    TIMESTAMPTZ_OID,
    UUID_OID,
    BinaryParameter,
    array,
    int4_field,
    text_field,
    time_field,
    uuid_field,
    word_field,
)
from kratos_sync.infrastructure.postgres.engine import driver_of
from kratos_sync.infrastructure.postgres.json import dumps

_TEXTS: Final = (TEXT_OID,) * 3
_COLUMN_OIDS: Final = (UUID_OID, TEXT_OID, UUID_OID, TIMESTAMPTZ_OID, JSON_OID, *_TEXTS, INT4_OID)


class EventRow(NamedTuple):
    """The columns of `kratos_sync.events` as binary fields, and the consumers' names."""

    id: bytes
    name: bytes
    subject: bytes
    occurred_at: bytes
    payload: bytes
    source: bytes
    dedupe_key: bytes
    trace_context: bytes
    footprint: bytes
    consumers: tuple[bytes, ...]

    @classmethod
    def of(cls, event: Publishable, provenance: Provenance) -> Self:
        """Encode an event. Raises ValueError for what JSON cannot hold."""
        kind: type[DomainEvent]
        if isinstance(event, UnreadEvent):
            kind, payload = event.kind, event.payload
        else:
            kind, payload = type(event), dumps(event.to_json()).encode()
        key, trace = provenance.dedupe_key, provenance.traceparent
        return cls(
            uuid_field(event.id),
            word_field(kind.name),
            uuid_field(event.subject),
            time_field(event.date_occurred),
            len(payload).to_bytes(4, "big") + payload,
            word_field(provenance.source),
            NULL if key is None else text_field(key),
            NULL if trace is None else text_field(trace),
            int4_field(footprint_of(payload)),
            tuple([word_field(consumer.name) for consumer in consumers_of(kind)]),
        )


# Due by the clock and not since the transaction began, which may be long ago: else a delivery could
# lie below a relay's low-water mark. set_config: a pooler drops settings of the session.
RECORD: Final = b"""
    WITH event AS (
        INSERT INTO kratos_sync.events
               (id, name, subject, occurred_at, payload, source, dedupe_key, trace_context,
                footprint)
        SELECT given.*
        FROM (SELECT set_config('synchronous_commit', 'on', true)) AS durable CROSS JOIN
             unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::json[],
                    $6::text[], $7::text[], $8::text[], $9::integer[]) AS given
        ON CONFLICT DO NOTHING
        RETURNING id, name, subject, footprint
    ), delivery AS (
        INSERT INTO kratos_sync.deliveries (event_id, subject, footprint, consumer, owed_at, due_at)
        SELECT event.id, event.subject, event.footprint, subscription.consumer, clock.at, clock.at
        FROM (SELECT clock_timestamp() AS at) clock CROSS JOIN event
             JOIN unnest($10::text[], $11::text[]) AS subscription (name, consumer)
             ON subscription.name = event.name
    )
    SELECT id FROM event
"""

# The same by a function, for a role that may not write the tables: it limits what is recorded.
_BY_FUNCTION: Final = """
    SELECT kratos_sync.record_{source}_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
RECORD_WEBHOOKS: Final = _BY_FUNCTION.format(source="webhook").encode()
RECORD_ERASURES: Final = _BY_FUNCTION.format(source="erase").encode()


def arrays_of(rows: Sequence[EventRow]) -> list[BinaryParameter]:
    """The parameters of RECORD; there must be a row.

    They are the nine columns, then the names of events and for each name a subscribed consumer.
    """
    columns = list(zip(*rows, strict=True))
    arrays = [array(oid, columns[index]) for index, oid in enumerate(_COLUMN_OIDS)]
    consumers = {row.name: row.consumers for row in rows}
    pairs = [(name, consumer) for name, names in consumers.items() for consumer in names]
    return arrays + [array(TEXT_OID, [pair[side] for pair in pairs]) for side in (0, 1)]


def record_many(
    connection: Connection,
    events: Sequence[tuple[DomainEvent, Provenance]],
    statement: bytes = RECORD,
) -> int:
    """Record events and their deliveries in the connection's transaction, in one statement.

    Returns how many are new: neither their id nor their dedupe key was recorded before.
    """
    if not events:
        return 0
    rows = [EventRow.of(event, provenance) for event, provenance in events]
    cursor = psycopg.RawCursor(driver_of(connection))
    return cursor.execute(statement, arrays_of(rows), prepare=True, binary=True).rowcount
