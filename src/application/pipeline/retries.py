"""What becomes of a batch that failed."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import structlog

from kratos_sync.application.consumer import Consumer, RetryLater
from kratos_sync.application.pipeline.batch import FAILURES, Batch, CallNext, Failure, Result, Start
from kratos_sync.application.pipeline.logging import (
    explain,
    log_failure,
    shape_of,
    shorten,
    type_of,
)
from kratos_sync.application.ports.dead_letters import RETRY_LATER, FailedAttempt
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import (
    ConcurrencyConflict,
    PendingDelivery,
    RoomAgain,
)

CONFLICTS_IN_A_ROW = 5
# So often doubled, a second is longer than any cap, and still no overflow.
MOST_DOUBLINGS = 24

log = structlog.get_logger()


class Lost(NamedTuple):
    """A delivery that was at its consumer when its thread or its process came to an end."""

    consumer: str
    event_id: UUID
    attempt: int
    since: datetime


class BatchConflict(ConcurrencyConflict):
    """A batch whose transaction lost against another one."""

    def __init__(self, result: Result) -> None:
        super().__init__(str(result.error))
        self.result = result


def retry_conflicts(call_next: CallNext, batch: Batch) -> Result:
    """Begin anew when another transaction got there first; that is nobody's failure.

    One event that runs the server out of memory or disk each time has failed by itself.
    """

    def attempt() -> Result:
        result = call_next(batch)
        is_split_anyway = isinstance(result.error, RoomAgain) and len(batch.event_ids) > 1
        if isinstance(result.error, ConcurrencyConflict) and not is_split_anyway:
            log.debug("conflict", consumer=batch.consumer.name, events=len(batch.event_ids))
            raise BatchConflict(result)
        return result

    try:
        return retry_on_conflict(attempt, CONFLICTS_IN_A_ROW - 1)
    except BatchConflict as conflict:
        result = conflict.result
    if isinstance(result.error, RoomAgain):
        return replace(result, error=result.error.__cause__)
    return result


def record_failure(call_next: CallNext, batch: Batch) -> Result:
    """Record that a delivery failed and when it is due again, once it is known which one did.

    That is one that failed alone, or that its consumer was interrupted at. Where the inbox could
    not even be opened no consumer is at fault.
    """
    result = call_next(batch)
    delivery = result.interrupted
    if len(batch.event_ids) == 1 and result.unprocessed:
        (delivery,) = result.unprocessed
    if result.error is None or delivery is None:
        return result
    failed = failure(batch.consumer, result.started, delivery, result.error)
    try:
        # Who had the row may hold it a little longer; an attempt that is not counted would be
        # repeated for ever.
        retry_on_conflict(lambda: batch.failures.record(failed.attempt), CONFLICTS_IN_A_ROW - 1)
    except LedgerUnavailable:
        raise
    except FAILURES as error:
        return result.rolled_back(error, result.interrupted)
    log_failure(batch.consumer, failed)
    is_alone = len(batch.event_ids) == 1
    return replace(
        result, failed=(failed,), unprocessed=(), error=None if is_alone else result.error
    )


def failure(
    consumer: type[Consumer[Any]], started: Start, delivery: PendingDelivery, error: BaseException
) -> Failure:
    """Give the account of an attempt that ended in this error."""
    postponed = isinstance(error, RetryLater)
    if isinstance(error, RetryLater):
        retry_after: timedelta | None = error.delay
    elif isinstance(error, consumer.gives_up_on):
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
        error_type=RETRY_LATER if postponed else type_of(error),
        error_shape=shape_of(error),
        is_postponed=postponed,
    )
    return Failure(delivery, error, attempt)


def account_of_loss(
    consumer: type[Consumer[Any]],
    lost: Lost,
    error_type: str,
    message: str,
    stack: str = "",
) -> FailedAttempt:
    """Give the account of an attempt that nobody came back from to tell."""
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
    """Give the wait after that attempt failed: doubling, capped, with up to a fifth less.

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
    """Do it, and after each of so many conflicts pause and do it again.

    Raises the ConcurrencyConflict that is one too many, and whatever else ``do`` raises.
    """
    for _ in range(most):
        try:
            return do()
        except ConcurrencyConflict:
            if pause is not None:
                pause(seconds)
    return do()
