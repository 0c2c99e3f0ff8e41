"""Events as the parameters of the statement that records a group of them."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Self

from application.footprint import footprint_of
from application.ports.event_bus import Provenance, Publishable, UnreadEvent
from application.subscriptions import consumers_of
from domain.events import DomainEvent
from infrastructure.binary_arrays import (
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
from infrastructure.json_columns import dumps

_COLUMN_OIDS: Final = (
    UUID_OID,
    TEXT_OID,
    UUID_OID,
    TIMESTAMPTZ_OID,
    JSON_OID,
    TEXT_OID,
    TEXT_OID,
    TEXT_OID,
    INT4_OID,
)


class EventRow(NamedTuple):
    """The columns of `kratos_sync.events`, each an encoded field, and who is owed the event."""

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


def event_arrays(rows: Sequence[EventRow]) -> list[BinaryParameter]:
    """The nine columns, each as an array; there must be a row."""
    columns = list(zip(*rows, strict=True))
    return [array(oid, columns[index]) for index, oid in enumerate(_COLUMN_OIDS)]


def subscription_arrays(rows: Iterable[EventRow]) -> list[BinaryParameter]:
    """Two arrays of the same length: an event's name, and one consumer that is owed such events."""
    consumers = {row.name: row.consumers for row in rows}
    pairs = [(name, consumer) for name, names in consumers.items() for consumer in names]
    return [array(TEXT_OID, [pair[side] for pair in pairs]) for side in (0, 1)]
