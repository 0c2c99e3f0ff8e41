"""Recording events, and with each what is owed to its consumers."""

from collections.abc import Sequence
from typing import Final

import psycopg
from sqlalchemy import Connection

from application.ports.event_bus import Provenance
from domain.events import DomainEvent
from infrastructure.binary_arrays import BinaryParameter
from infrastructure.database import driver_of
from infrastructure.ledger.event_rows import EventRow, event_arrays, subscription_arrays

# Owed by the clock and not since the transaction began, which may be long ago: a relay looks for
# what is due from a little below the last that it saw.
# The commit is durable also behind a pooler, which drops what we set for the session.
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
    ), owed AS (
        INSERT INTO kratos_sync.deliveries (event_id, subject, footprint, consumer, owed_at, due_at)
        SELECT event.id, event.subject, event.footprint, subscription.consumer, clock.at, clock.at
        FROM (SELECT clock_timestamp() AS at) clock CROSS JOIN event
             JOIN unnest($10::text[], $11::text[]) AS subscription (name, consumer)
             ON subscription.name = event.name
    )
    SELECT id FROM event
"""

# The same by functions, for a role that may not write the tables: what it may record
# stands there. Whoever may write the tables may record anything by either.
_BY_FUNCTION: Final = """
    SELECT kratos_sync.record_{source}_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
RECORD_WEBHOOKS: Final = _BY_FUNCTION.format(source="webhook").encode()
RECORD_ERASURES: Final = _BY_FUNCTION.format(source="erase").encode()


def arrays_of(rows: Sequence[EventRow]) -> list[BinaryParameter]:
    """Give the parameters of RECORD; there must be a row."""
    return event_arrays(rows) + subscription_arrays(rows)


def record_many(
    connection: Connection,
    events: Sequence[tuple[DomainEvent, Provenance]],
    statement: bytes = RECORD,
) -> int:
    """Record events and their deliveries in the connection's transaction, in one statement.

    Give how many are new: neither they, nor others with their dedupe keys, were recorded before.
    """
    if not events:
        return 0
    rows = [EventRow.of(event, provenance) for event, provenance in events]
    cursor = psycopg.RawCursor(driver_of(connection))
    return cursor.execute(statement, arrays_of(rows), prepare=True, binary=True).rowcount
