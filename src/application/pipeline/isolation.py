"""Keeping one event's failure from its neighbours."""

import json
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any
from uuid import UUID

import msgspec

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline.batch import FAILURES, Batch, CallNext
from kratos_sync.application.pipeline.logging import OtherLedgerUnavailable, delivering
from kratos_sync.application.pipeline.retries import failure
from kratos_sync.application.ports.event_bus import ANSWER_SOURCES, LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import (
    ConcurrencyConflict,
    PendingDelivery,
    TimeLimitExceeded,
)
from kratos_sync.domain.events import EVENTS, DomainEvent, KratosIdentityUpdated
from kratos_sync.domain.json_values import Json


def isolate_failures(batch: Batch, call_next: CallNext) -> None:
    """Run a batch that failed again, by halves, so that in the end only the poison fails.

    One whose inbox could not be opened is not split: that is no fault of its events. Where it is
    known which event the consumer was interrupted at, the others run without it; and those that are
    suspected of harm to the worker run after the others, each alone. A part whose failure cannot be
    recorded keeps no other part from running: that is raised at the end.
    """
    ids = batch.event_ids
    parts: list[Sequence[UUID]]
    try:
        call_next(batch)
        parts = [[suspect] for suspect in batch.suspects]
    except LedgerUnavailable:
        raise
    except FAILURES:
        if len(ids) == 1 or not batch.is_open:
            raise
        parts = _parts(batch)
    # Outside: what fails while an error is handled would quote it, and that is another person's.
    unrecorded = [error for part in parts if (error := _run(batch.of(part), call_next)) is not None]
    if unrecorded:
        raise unrecorded[0]


def _run(part: Batch, call_next: CallNext) -> BaseException | None:
    try:
        isolate_failures(part, call_next)
    except LedgerUnavailable:
        raise
    except FAILURES as error:
        return error
    return None


def _parts(batch: Batch) -> list[Sequence[UUID]]:
    ids = batch.event_ids
    if batch.interrupted_at is not None:
        return [[each for each in ids if each != batch.interrupted_at.event_id]]
    return [ids[: len(ids) // 2], ids[len(ids) // 2 :]]


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
            unit.savepoint()
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
                if len(batch.owed) == 1 or not unit.roll_back_to_savepoint():
                    raise
                batch.failed.append(failure(batch, delivery, error))


def _consume_one(batch: Batch, consumer: Consumer[Any], delivery: PendingDelivery) -> None:
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


def read_event(delivery: PendingDelivery) -> DomainEvent:
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
