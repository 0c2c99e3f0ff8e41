"""What becomes of a batch that failed."""

import traceback
from datetime import timedelta
from random import uniform
from typing import Any

import structlog

from application.consumer import Consumer
from application.pipeline.batch import FAILURES, Batch, CallNext, Failure
from application.pipeline.logging import log_failure
from application.ports.event_bus import LedgerUnavailable
from application.ports.failures import FailedAttempt
from application.ports.unit_of_work import ConcurrencyConflict, Owed

CONFLICTS_IN_A_ROW = 5
LONGEST_ERROR = 8_000
# So often doubled, a second is longer than any cap, and still no overflow.
MOST_DOUBLINGS = 24

log = structlog.get_logger()


def retry_conflicts(batch: Batch, call_next: CallNext) -> None:
    """Begin anew when another transaction got there first; that is nobody's failure."""
    for _ in range(CONFLICTS_IN_A_ROW - 1):
        try:
            return call_next(batch)
        except ConcurrencyConflict:
            log.debug("conflict", consumer=batch.consumer.name, events=len(batch.event_ids))
    return call_next(batch)


def record_failure(batch: Batch, call_next: CallNext) -> None:
    """Write down that a delivery failed and when it is due again, once it failed alone.

    Where the inbox could not even be opened nobody's consumer is at fault: that is raised on.
    """
    try:
        call_next(batch)
    except LedgerUnavailable:
        raise
    except FAILURES as error:
        if len(batch.event_ids) > 1 or not batch.owed:
            raise
        (delivery,) = batch.owed
        failed = failure(batch, delivery, error)
        batch.failures.record(failed.attempt)
        log_failure(batch.consumer, failed)


def failure(batch: Batch, delivery: Owed, error: BaseException) -> Failure:
    """Give the account of an attempt that ended in this error."""
    attempt = FailedAttempt(
        event_id=delivery.event_id,
        consumer=batch.consumer.name,
        number=delivery.attempt,
        started_at=batch.started_at,
        duration=batch.duration,
        error=explain(error),
        retry_after=backoff(batch.consumer, delivery.attempt),
    )
    return Failure(delivery, error, attempt)


def backoff(consumer: type[Consumer[Any]], attempt: int) -> timedelta | None:
    """Give the wait after that attempt failed: doubling, capped, with up to a fifth less.

    None after the last attempt.
    """
    if attempt >= consumer.max_attempts:
        return None
    factor: int = 2 ** min(attempt - 1, MOST_DOUBLINGS)
    return min(consumer.first_backoff * factor, consumer.longest_backoff) * uniform(0.8, 1.0)  # noqa: S311


def explain(error: BaseException) -> str:
    """Give the error and its traceback, cut in the middle to a bounded size."""
    text = "".join(traceback.format_exception(error)).strip()
    if len(text) <= LONGEST_ERROR:
        return text
    half = LONGEST_ERROR // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters cut …\n{text[-half:]}"
