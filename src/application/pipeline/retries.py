"""What becomes of a batch that failed."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Any, TypeVar

import structlog

from kratos_sync.application.consumer import Consumer, RetryLater
from kratos_sync.application.errors import explain, name_of, shape_of, shorten
from kratos_sync.application.pipeline.batch import FAILURES, Batch, CallNext, Failure, Result, Start
from kratos_sync.application.pipeline.logging import log_failure
from kratos_sync.application.ports.dead_letters import RETRY_LATER, FailedAttempt, Lost
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import (
    ConcurrencyConflict,
    PendingDelivery,
    RoomAgain,
)

CONFLICTS_IN_A_ROW = 5
# A second doubled so often is longer than any cap, and still no overflow.
MOST_DOUBLINGS = 24

log = structlog.get_logger()


def retry_conflicts(call_next: CallNext, batch: Batch) -> Result:
    """Run a batch again whose transaction lost against another one: no consumer failed.

    A batch that exhausted the server's memory or disk is split instead; a single event that does so
    each time has failed.
    """
    for _ in range(CONFLICTS_IN_A_ROW):
        result = call_next(batch)
        error = result.error
        if not isinstance(error, ConcurrencyConflict):
            return result
        if isinstance(error, RoomAgain) and len(batch.event_ids) > 1:
            return result
        log.debug("conflict", consumer=batch.consumer.name, events=len(batch.event_ids))
    return replace(result, error=error.__cause__) if isinstance(error, RoomAgain) else result


def record_failure(call_next: CallNext, batch: Batch) -> Result:
    """Record the failed attempt of a delivery that ran alone, or was interrupted.

    Where the inbox could not be opened no consumer has failed.
    """
    result = call_next(batch)
    is_alone = len(batch.event_ids) == 1
    delivery = result.interrupted
    if is_alone and result.unprocessed:
        (delivery,) = result.unprocessed
    if result.error is None or delivery is None:
        return result
    failed = failure(batch.consumer, result.started, delivery, result.error)
    try:
        # The row may still be locked for a moment, and an attempt that is not counted would be
        # repeated for ever.
        retry_on_conflict(lambda: batch.failures.record(failed.attempt), CONFLICTS_IN_A_ROW - 1)
    except LedgerUnavailable:
        raise
    except FAILURES as error:
        return result.rolled_back(error, result.interrupted)
    log_failure(batch.consumer, failed)
    return replace(
        result, failed=(failed,), unprocessed=(), error=None if is_alone else result.error
    )


def failure(
    consumer: type[Consumer[Any]], started: Start, delivery: PendingDelivery, error: BaseException
) -> Failure:
    """The failure of an attempt that ended in this error."""
    is_postponed = isinstance(error, RetryLater)
    if isinstance(error, RetryLater):
        retry_after: timedelta | None = error.delay
    elif isinstance(error, tuple(consumer.gives_up_on)):
        retry_after = None
    else:
        retry_after = backoff(consumer, delivery.attempt)
    attempt = FailedAttempt(
        event_id=delivery.event_id,
        consumer=consumer.name,
        number=delivery.attempt,
        started_at=started.at,
        duration=started.elapsed,
        error=explain(error),
        retry_after=retry_after,
        error_type=RETRY_LATER if is_postponed else name_of(type(error)),
        error_shape=shape_of(error),
        is_postponed=is_postponed,
    )
    return Failure(delivery, error, attempt)


def lost_attempt(
    consumer: type[Consumer[Any]], lost: Lost, error_type: str, message: str, stack: str = ""
) -> FailedAttempt:
    """The failed attempt of a delivery whose thread or process did not come back."""
    return FailedAttempt(
        event_id=lost.event_id,
        consumer=consumer.name,
        number=lost.attempt,
        started_at=lost.since,
        duration=max(datetime.now(UTC) - lost.since, timedelta()),
        error=shorten(f"{stack}{error_type}: {message}"),
        retry_after=backoff(consumer, lost.attempt),
        error_type=error_type,
        error_shape=message,
    )


def backoff(consumer: type[Consumer[Any]], attempt: int) -> timedelta | None:
    """The wait after that attempt failed: doubling, capped, with up to a fifth less.

    None after the last attempt.
    """
    if attempt >= consumer.max_attempts:
        return None
    factor: int = 2 ** min(attempt - 1, MOST_DOUBLINGS)
    return min(consumer.first_backoff * factor, consumer.longest_backoff) * uniform(0.8, 1.0)  # noqa: S311


Done = TypeVar("Done")


def retry_on_conflict(
    do: Callable[[], Done],
    most: int,
    pause: Callable[[float], None] | None = None,
    seconds: float = 0,
) -> Done:
    """Call ``do`` again after a conflict, at most so often, with a pause before each retry.

    Raises the last ConcurrencyConflict, and whatever else ``do`` raises.
    """
    for _ in range(most):
        try:
            return do()
        except ConcurrencyConflict:
            if pause is not None:
                pause(seconds)
    return do()
