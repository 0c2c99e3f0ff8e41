"""Reads the event of a delivery."""

import json

import msgspec

from kratos_sync.application.ports.event_bus import ANSWER_SOURCES
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.domain.events import (
    EVENTS,
    DomainEvent,
    KratosIdentityHinted,
    KratosIdentityUpdated,
)
from kratos_sync.domain.json_values import Json

# By itself msgspec takes a hundred times as long for some numbers.
_decode = msgspec.json.Decoder(float_hook=float).decode


def read_event(delivery: PendingDelivery) -> DomainEvent:
    """The event of a delivery. Raises ValueError for a payload that it cannot have."""
    payload: dict[str, Json]
    try:
        payload = _decode(delivery.payload)
    except msgspec.DecodeError:
        # The ledger may hold what msgspec rejects, such as lone surrogates.
        payload = json.loads(delivery.payload)
    event_id, occurred_at = delivery.event_id, delivery.occurred_at
    if delivery.name == KratosIdentityHinted.name:
        return KratosIdentityHinted.from_json(event_id, occurred_at, payload, delivery.hook)
    if delivery.name != KratosIdentityUpdated.name:
        return EVENTS[delivery.name].from_json(event_id, occurred_at, payload)
    if delivery.source in ANSWER_SOURCES:
        return KratosIdentityUpdated.answered(event_id, occurred_at, payload)
    return KratosIdentityUpdated.from_json(
        event_id, occurred_at, payload, delivery.recorded_at, delivery.hook
    )
