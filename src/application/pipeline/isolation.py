"""Keeps one event's failure from the other events of its batch."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline.batch import FAILURES, Batch, CallNext, Failure, Result
from kratos_sync.application.pipeline.logging import delivering
from kratos_sync.application.pipeline.retries import failure
from kratos_sync.application.ports.event_bus import ANSWER_SOURCES, LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import (
    ConcurrencyConflict,
    OtherLedgerUnavailable,
    PendingDelivery,
    TimeLimitExceeded,
)
from kratos_sync.domain.events import (
    EVENTS,
    DomainEvent,
    KratosIdentityHinted,
    KratosIdentityUpdated,
)
from kratos_sync.domain.json_values import Json

Returned = TypeVar("Returned")


def isolate_failures(call_next: CallNext, batch: Batch) -> Result:
    """Run a failed batch again in halves, until only the failing event has failed.

    A batch whose inbox could not be opened is not split. If one event was interrupted, the others
    run without it. Quarantined events run last, each alone. All parts run, and the result has the
    first error that could not be recorded.
    """
    result = call_next(batch)
    if result.error is None:
        parts: list[Sequence[UUID]] = [[event_id] for event_id in result.quarantined]
    elif len(batch.event_ids) == 1 or not result.is_open:
        return result
    else:
        parts = _parts(batch.event_ids, result.interrupted)
    of_parts = [isolate_failures(call_next, batch.part(part)) for part in parts]
    results = [result, *of_parts] if result.error is None else of_parts
    failed = [] if result.error is None else result.failed
    return Result(
        result.started,
        result.is_open,
        succeeded=[each for one in results for each in one.succeeded],
        failed=[*failed, *(each for one in results for each in one.failed)],
        unprocessed=[each for one in results for each in one.unprocessed],
        error=next((one.error for one in results if one.error is not None), None),
    )


def _parts(ids: Sequence[UUID], interrupted: PendingDelivery | None) -> list[Sequence[UUID]]:
    if interrupted is not None:
        return [[each for each in ids if each != interrupted.event_id]]
    return [ids[: len(ids) // 2], ids[len(ids) // 2 :]]


def consume(batch: Batch) -> Result:
    """Call the consumer with each opened event, in the order of their ids.

    An event that fails is set aside if a savepoint can undo what it did; otherwise its error rolls
    back the batch. A failure after the time limit counts as exceeding it. When the batch has used
    one time limit, or the consumer is paused, the remaining events are unprocessed. Exceeding the
    limit while the consumer is built fails the first event.
    """
    unit, limit = batch.unit_of_work, batch.consumer.time_limit.total_seconds()
    opened = Result(batch.started, is_open=True, unprocessed=batch.deliveries)
    try:
        consumer = _watched(batch, batch.deliveries[0], lambda: unit.consumer(batch.consumer))
    except TimeLimitExceeded as error:
        return opened.rolled_back(error, batch.deliveries[0])
    succeeded: list[PendingDelivery] = []
    failed: list[Failure] = []
    unprocessed: Sequence[PendingDelivery] = ()
    for position, delivery in enumerate(batch.deliveries):
        began = monotonic()
        if position and (began > batch.started.monotonic + limit or batch.is_paused()):
            unprocessed = batch.deliveries[position:]
            break
        with delivering(batch.consumer, delivery):
            unit.savepoint()
            try:
                _watched(batch, delivery, partial(_consume_one, consumer, delivery))
            except ConcurrencyConflict as error:
                return opened.rolled_back(error)
            except TimeLimitExceeded as error:
                # The connection may be in any state.
                return opened.rolled_back(error, delivery)
            except FAILURES as error:
                if monotonic() - began >= limit:
                    overrun = TimeLimitExceeded(f"took longer than {batch.consumer.time_limit}")
                    overrun.__cause__ = error
                    return opened.rolled_back(overrun, delivery)
                if len(batch.deliveries) == 1 or not unit.roll_back_to_savepoint():
                    return opened.rolled_back(error)
                failed.append(failure(batch.consumer, batch.started, delivery, error))
            else:
                succeeded.append(delivery)
    return Result(batch.started, True, succeeded, failed, unprocessed)


def _watched(batch: Batch, delivery: PendingDelivery, call: Callable[[], Returned]) -> Returned:
    try:
        batch.watch.begin(delivery)
        try:
            return call()
        finally:
            batch.watch.end()
    except LedgerUnavailable as error:
        raise OtherLedgerUnavailable(str(error)) from error
    except TimeLimitExceeded:
        # The interruption may have come before the watch had ended.
        with suppress(TimeLimitExceeded):
            batch.watch.end()
        raise


def _consume_one(consumer: Consumer[Any], delivery: PendingDelivery) -> None:
    consumer.consume(read_event(delivery))


def read_event(delivery: PendingDelivery) -> DomainEvent:
    """The event of a delivery. Raises ValueError for a payload that it cannot have."""
    payload: dict[str, Json]
    try:
        payload = msgspec.json.decode(delivery.payload)
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
