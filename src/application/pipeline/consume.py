"""The core of the pipeline: the consumer itself."""

import json

import msgspec

from application.pipeline.batch import FAILURES, Batch
from application.pipeline.logging import delivering
from application.pipeline.retries import failure
from application.ports.event_bus import LedgerUnavailable
from application.ports.unit_of_work import ConcurrencyConflict, Owed
from domain.events import EVENTS, DomainEvent
from domain.json_values import Json


def consume(batch: Batch) -> None:
    """Let the consumer consume each event still owed, in the order of their ids.

    One that fails is set aside if what it did can be taken back; otherwise what it raised is raised
    on. Whatever is logged meanwhile carries the delivery it was logged for.
    """
    unit = batch.unit_of_work
    consumer = unit.consumer(batch.consumer)
    for delivery in batch.owed:
        with delivering(batch.consumer, delivery):
            unit.checkpoint()
            try:
                consumer.consume(read_event(delivery))
            except (LedgerUnavailable, ConcurrencyConflict):
                raise
            except FAILURES as error:
                if len(batch.owed) == 1 or not unit.take_back():
                    raise
                batch.poisonous.append(failure(batch, delivery, error))


def read_event(delivery: Owed) -> DomainEvent:
    """Give the event of a delivery. Raises ValueError for a payload that it cannot have."""
    payload: dict[str, Json]
    try:
        payload = msgspec.json.decode(delivery.payload)
    except msgspec.DecodeError:
        # What it does not read, lone surrogates say, may be on record all the same.
        payload = json.loads(delivery.payload)
    return EVENTS[delivery.name].from_json(delivery.event_id, delivery.occurred_at, payload)
