"""What becomes of a batch that failed."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import structlog

from kratos_sync.application.consumer import Consumer, RetryLater
from kratos_sync.application.pipeline.batch import FAILURES, Batch, CallNext, Failure
from kratos_sync.application.pipeline.logging import (
    explain,
    log_failure,
    shape_of,
    shorten,
    type_of,
)
from kratos_sync.application.ports.dead_letters import RETRY_LATER, FailedAttempt
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict, PendingDelivery

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


def retry_conflicts(batch: Batch, call_next: CallNext) -> None:
    """Begin anew when another transaction got there first; that is nobody's failure."""
    for _ in range(CONFLICTS_IN_A_ROW - 1):
        try:
            return call_next(batch)
        except ConcurrencyConflict:
            log.debug("conflict", consumer=batch.consumer.name, events=len(batch.event_ids))
    return call_next(batch)


def record_failure(batch: Batch, call_next: CallNext) -> None:
    """Write down that a delivery failed and when it is due again, once it is known which one did.

    That is one that failed alone, or that its consumer was interrupted at. Where the inbox could
    not even be opened nobody's consumer is at fault: that is raised on.
    """
    try:
        call_next(batch)
    except LedgerUnavailable:
        raise
    except FAILURES as error:
        delivery = batch.interrupted_at
        if delivery is None:
            if len(batch.event_ids) > 1 or not batch.owed:
                raise
            (delivery,) = batch.owed
        failed = failure(batch, delivery, error)
        _record(batch, failed)
        log_failure(batch.consumer, failed)
        if len(batch.event_ids) > 1:
            raise


def _record(batch: Batch, failed: Failure) -> None:
    # Who had the row may hold it a little longer; an attempt that is not counted is tried for ever.
    for _ in range(CONFLICTS_IN_A_ROW - 1):
        with suppress(ConcurrencyConflict):
            return batch.failures.record(failed.attempt)
    return batch.failures.record(failed.attempt)


def failure(batch: Batch, delivery: PendingDelivery, error: BaseException) -> Failure:
    """Give the account of an attempt that ended in this error."""
    postponed = isinstance(error, RetryLater)
    if isinstance(error, RetryLater):
        retry_after: timedelta | None = error.delay
    elif isinstance(error, batch.consumer.gives_up_on):
        retry_after = None
    else:
        retry_after = backoff(batch.consumer, delivery.attempt)
    attempt = FailedAttempt(
        event_id=delivery.event_id,
        consumer=batch.consumer.name,
        number=delivery.attempt,
        started_at=batch.started_at,
        duration=batch.duration,
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
    do: Callable[[], Done], most: int, pause: Callable[[float], None], seconds: float
) -> Done:
    """Do it, and after each of so many conflicts pause and do it again.

    Raises the ConcurrencyConflict that is one too many, and whatever else ``do`` raises.
    """
    for _ in range(most):
        try:
            return do()
        except ConcurrencyConflict:
            pause(seconds)
    return do()
