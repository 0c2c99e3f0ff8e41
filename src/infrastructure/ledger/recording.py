"""Recording events with their deliveries: many of them in one statement."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Self

import psycopg
from sqlalchemy import Connection

from kratos_sync.application.footprint import footprint_of
from kratos_sync.application.ports.event_bus import Provenance, Publishable, UnreadEvent
from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.postgres import binary_arrays as binary
from kratos_sync.infrastructure.postgres.binary_arrays import TEXT_OID, BinaryParameter, array
from kratos_sync.infrastructure.postgres.engine import driver_of
from kratos_sync.infrastructure.postgres.json import dumps

COLUMN_OIDS: Final = (
    binary.UUID_OID,
    TEXT_OID,
    binary.UUID_OID,
    binary.TIMESTAMPTZ_OID,
    binary.JSON_OID,
    *(TEXT_OID,) * 4,
    binary.INT4_OID,
)


LENGTH_BYTES: Final = 4
"""Of a binary field, before its content."""


class EventRow(NamedTuple):
    """The columns of `kratos_sync.events` as binary fields."""

    id: bytes
    name: bytes
    subject: bytes
    occurred_at: bytes
    payload: bytes
    source: bytes
    dedupe_key: bytes
    trace_context: bytes
    hook: bytes
    footprint: bytes

    @property
    def traceparent(self) -> str | None:
        """The trace context."""
        field = self.trace_context
        return None if field == binary.NULL else field[LENGTH_BYTES:].decode()

    @classmethod
    def of(cls, event: Publishable, provenance: Provenance) -> Self:
        """Encode an event. Raises ValueError for what JSON cannot hold."""
        kind: type[DomainEvent]
        if isinstance(event, UnreadEvent):
            kind, payload = event.kind, event.payload
        else:
            kind, payload = type(event), dumps(event.to_json()).encode()
        key, trace, hook = provenance.dedupe_key, provenance.traceparent, provenance.hook
        return cls(
            binary.uuid_field(event.id),
            binary.word_field(kind.name),
            binary.uuid_field(event.subject),
            binary.time_field(event.date_occurred),
            len(payload).to_bytes(4, "big") + payload,
            binary.word_field(provenance.source),
            binary.NULL if key is None else binary.text_field(key),
            binary.NULL if trace is None else binary.text_field(trace),
            binary.NULL if hook is None else binary.word_field(hook),
            binary.int4_field(footprint_of(payload)),
        )


# Due by the clock and not since the transaction began, which may be long ago: else a delivery could
# lie below a relay's low-water mark. A microsecond apart, in the order given: the ids of facts that
# are raised together may have one time. set_config: a pooler drops settings of the session.
RECORD: Final = b"""
    WITH event AS (
        INSERT INTO kratos_sync.events
               (id, name, subject, occurred_at, payload, source, dedupe_key, trace_context,
                hook, footprint)
        SELECT given.*
        FROM (SELECT set_config('synchronous_commit', 'on', true)) AS durable CROSS JOIN
             unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::json[],
                    $6::text[], $7::text[], $8::text[], $9::text[], $10::integer[]) AS given
        ON CONFLICT DO NOTHING
        RETURNING id, name, subject, footprint
    ), clock AS MATERIALIZED (
        SELECT clock_timestamp() AS at
    ), given AS (
        SELECT id, min(number) AS number
        FROM unnest($1::uuid[]) WITH ORDINALITY AS each (id, number) GROUP BY id
    ), delivery AS (
        INSERT INTO kratos_sync.deliveries
               (event_id, subject, footprint, consumer, ordered, owed_at, due_at)
        SELECT event.id, event.subject, event.footprint, subscription.consumer,
               subscription.ordered, clock.at + given.number * interval '1 us', clock.at
        FROM clock CROSS JOIN event
             JOIN given ON given.id = event.id
             JOIN kratos_sync.subscriptions subscription ON subscription.event = event.name
    )
    SELECT id FROM event
"""

# The same by a function, for a role that may not write the tables: it limits what is recorded.
_BY_FUNCTION: Final = """
    SELECT kratos_sync.record_{kind}_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
RECORD_WEBHOOKS: Final = _BY_FUNCTION.format(kind="webhook").encode()
RECORD_ERASURES: Final = _BY_FUNCTION.format(kind="erase").encode()
RECORD_ANSWERS: Final = _BY_FUNCTION.format(kind="answer").encode()


def arrays_of(rows: Sequence[EventRow]) -> list[BinaryParameter]:
    """The parameters of RECORD, one for each column; there must be a row."""
    return list(map(array, COLUMN_OIDS, zip(*rows, strict=True)))


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
