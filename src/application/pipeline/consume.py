"""The core of the pipeline: the consumer itself."""

import json
from contextlib import suppress
from time import monotonic
from typing import Any

import msgspec

from application.consumer import Consumer
from application.pipeline.batch import FAILURES, Batch
from application.pipeline.errors import OtherLedgerUnavailable
from application.pipeline.logging import delivering
from application.pipeline.retries import failure
from application.ports.event_bus import ANSWER_SOURCES, LedgerUnavailable
from application.ports.unit_of_work import ConcurrencyConflict, Owed
from application.ports.watch import TimeLimitExceeded
from domain.events import EVENTS, DomainEvent, KratosIdentityUpdated
from domain.json_values import Json


def consume(batch: Batch) -> None:
    """Let the consumer consume each event still owed, in the order of their ids.

    One that fails is set aside if what it did can be taken back; otherwise what it raised is raised
    on. One that fails after its time limit, by a statement's timeout say, has exceeded it. Those
    that there is no time for any more are left. Whatever is logged meanwhile carries the
    delivery it was logged for.
    """
    try:
        _consume_all(batch)
    except LedgerUnavailable as error:
        raise OtherLedgerUnavailable(str(error)) from error


def _consume_all(batch: Batch) -> None:
    unit = batch.unit_of_work
    consumer = unit.consumer(batch.consumer)
    limit = batch.consumer.time_limit.total_seconds()
    for position, delivery in enumerate(batch.owed):
        began = monotonic()
        if position and began > batch.started + limit:
            batch.left = batch.owed[position:]
            batch.owed = batch.owed[:position]
            break
        with delivering(batch.consumer, delivery):
            unit.checkpoint()
            try:
                _consume_one(batch, consumer, delivery)
            except (ConcurrencyConflict, TimeLimitExceeded):
                # After an interruption nobody knows what state the connection is in.
                raise
            except FAILURES as error:
                if monotonic() - began >= limit:
                    batch.interrupted_at = delivery
                    raise TimeLimitExceeded(
                        f"took longer than {batch.consumer.time_limit}"
                    ) from error
                if len(batch.owed) == 1 or not unit.take_back():
                    raise
                batch.poisonous.append(failure(batch, delivery, error))


def _consume_one(batch: Batch, consumer: Consumer[Any], delivery: Owed) -> None:
    try:
        batch.watch.begin(delivery)
        try:
            consumer.consume(read_event(delivery))
        finally:
            batch.watch.end()
    except TimeLimitExceeded:
        batch.interrupted_at = delivery
        # The interruption may have come before the watch had ended.
        with suppress(TimeLimitExceeded):
            batch.watch.end()
        raise


def read_event(delivery: Owed) -> DomainEvent:
    """Give the event of a delivery. Raises ValueError for a payload that it cannot have."""
    payload: dict[str, Json]
    try:
        payload = msgspec.json.decode(delivery.payload)
    except msgspec.DecodeError:
        # What it does not read, lone surrogates say, may be on record all the same.
        payload = json.loads(delivery.payload)
    event_id, occurred_at = delivery.event_id, delivery.occurred_at
    if delivery.name != KratosIdentityUpdated.name:
        return EVENTS[delivery.name].from_json(event_id, occurred_at, payload)
    if delivery.source in ANSWER_SOURCES:
        return KratosIdentityUpdated.answered(event_id, occurred_at, payload)
    return KratosIdentityUpdated.received(event_id, occurred_at, payload, delivery.recorded_at)
