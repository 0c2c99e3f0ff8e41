"""Recording events, and with each what is owed to its consumers."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from application.ports.event_bus import Provenance
from application.subscriptions import consumers_of
from domain.events import DomainEvent
from infrastructure.json_columns import dumps

RECORD_ONE = text("""
    WITH event AS (
        INSERT INTO kratos_sync.events
               (id, name, subject, occurred_at, payload, source, dedupe_key, trace_context)
        VALUES (:id, :name, :subject, :occurred_at, :payload, :source, :dedupe_key, :trace_context)
        ON CONFLICT DO NOTHING
        RETURNING id, subject
    ), owed AS (
        INSERT INTO kratos_sync.deliveries (event_id, subject, consumer)
        SELECT event.id, event.subject, consumer
        FROM event, unnest(CAST(:consumers AS text[])) AS consumer
    )
    SELECT count(*) FROM event
""")


def record(connection: Connection, event: DomainEvent, provenance: Provenance) -> bool:
    """Record the event and its deliveries in the connection's transaction, in one statement.

    False if this event, or another one with its dedupe key, was recorded before.
    """
    recorded: int = connection.execute(RECORD_ONE, _parameters(event, provenance)).scalar_one()
    return recorded == 1


def record_many(connection: Connection, events: Sequence[tuple[DomainEvent, Provenance]]) -> None:
    """Record events and their deliveries in the connection's transaction, sent as one pipeline."""
    if events:
        connection.execute(RECORD_ONE, [_parameters(*event) for event in events])


def _parameters(event: DomainEvent, provenance: Provenance) -> dict[str, object]:
    return {
        "id": event.id,
        "name": event.name,
        "subject": event.subject,
        "occurred_at": event.date_occurred,
        "payload": dumps(event.to_json()),
        "source": provenance.source,
        "dedupe_key": provenance.dedupe_key,
        "trace_context": provenance.traceparent,
        "consumers": [consumer.name for consumer in consumers_of(event)],
    }
