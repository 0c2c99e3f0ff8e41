"""Calls the consumer with the events of a batch."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

from kratos_sync.application.consumer import Consumer, is_async
from kratos_sync.application.grouping import LONGEST_SECONDS, is_grouped
from kratos_sync.application.pipeline.batch import FAILURES, Batch, Failure, Result, read_event
from kratos_sync.application.pipeline.concurrently import consume_at_once
from kratos_sync.application.pipeline.outcomes import delivering, failure
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import (
    OtherLedgerUnavailable,
    PendingDelivery,
    TimeLimitExceeded,
    UnitOfWork,
)

Returned = TypeVar("Returned")


def consume(batch: Batch) -> Result:
    """Call the consumer with each opened event, in the order of their ids; an async one with all.

    An event that fails is set aside if a savepoint can undo what it did; otherwise its error rolls
    back the batch. A failure after the time limit counts as exceeding it. When the batch has used
    its time, or the consumer is paused, the remaining events are unprocessed. Exceeding the limit
    while the consumer is built fails the first event.

    Of a consumer with a batch size of 1 the savepoint is in the database, and undoes everything; an
    event that lost a race runs alone afterwards.
    """
    began, first = monotonic(), batch.deliveries[0]
    try:
        consumer = _watched(batch, first, lambda: batch.unit_of_work.consumer(batch.consumer))
    except TimeLimitExceeded as error:
        result = Result(batch.started, is_open=True, unprocessed=batch.deliveries)
        return replace(result.rolled_back(error, first), seconds=monotonic() - began)
    consume_all = consume_at_once if is_async(batch.consumer) else _consume_in_turn
    return replace(consume_all(batch, consumer), seconds=monotonic() - began)


def _consume_in_turn(batch: Batch, consumer: Consumer[Any]) -> Result:
    unit, limit = batch.unit_of_work, batch.consumer.time_limit.total_seconds()
    grouped = is_grouped(batch.consumer)
    until = batch.started.monotonic + (LONGEST_SECONDS if grouped else limit)
    opened = Result(batch.started, is_open=True, unprocessed=batch.deliveries)
    succeeded: list[PendingDelivery] = []
    failed: list[Failure] = []
    conflicting: list[UUID] = []
    unprocessed: Sequence[PendingDelivery] = ()
    for position, delivery in enumerate(batch.deliveries):
        began = monotonic()
        if position and (began > until or batch.is_paused()):
            unprocessed = batch.deliveries[position:]
            break
        with delivering(batch.consumer, delivery):
            unit.savepoint(in_database=grouped and len(batch.deliveries) > 1)
            try:
                _watched(
                    batch,
                    delivery,
                    partial(_consume_one, consumer, delivery, unit),
                )
            except FAILURES as raised:
                is_over = monotonic() - began >= limit
                cause = _as_overrun(raised, batch.consumer) if is_over else raised
                is_conflict = unit.is_conflict(cause)
                if not _undo(batch, cause, is_conflict=is_conflict):
                    late = delivery if isinstance(cause, TimeLimitExceeded) else None
                    return opened.rolled_back(cause, late)
                if is_conflict:
                    conflicting.append(delivery.event_id)
                else:
                    failed.append(failure(batch.consumer, batch.started, delivery, cause))
            else:
                succeeded.append(delivery)
    unit.end_events()
    return Result(batch.started, True, succeeded, failed, unprocessed, conflicting)


def _undo(batch: Batch, error: BaseException, *, is_conflict: bool) -> bool:
    """Undo what one event did; False if only a rollback of the batch can."""
    if len(batch.deliveries) == 1:
        return False
    if not is_grouped(batch.consumer) and (is_conflict or isinstance(error, TimeLimitExceeded)):
        return False
    return batch.unit_of_work.roll_back_to_savepoint(error)


def _as_overrun(error: BaseException, consumer: type[Consumer[Any]]) -> TimeLimitExceeded:
    if isinstance(error, TimeLimitExceeded):
        return error
    overrun = TimeLimitExceeded(f"took longer than {consumer.time_limit}")
    overrun.__cause__ = error
    return overrun


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


def _consume_one(consumer: Consumer[Any], delivery: PendingDelivery, unit: UnitOfWork) -> None:
    if inspect.iscoroutine(returned := consumer.consume(read_event(delivery))):
        returned.close()
        raise TypeError("consume returned a coroutine, and is no async def")
    unit.write_deferred()
