"""What becomes of a batch: what failed is run apart, recorded and retried, and the log says so."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Any, TypeVar
from uuid import UUID

import structlog
from structlog.typing import EventDict, WrappedLogger

from kratos_sync.application.consumer import Consumer, delay_of
from kratos_sync.application.errors import explain, name_of, shape_of, shorten, summary
from kratos_sync.application.pipeline.batch import FAILURES, Batch, CallNext, Failure, Result, Start
from kratos_sync.application.ports.dead_letters import RETRY_LATER, FailedAttempt, Lost
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import (
    ConcurrencyConflict,
    PendingDelivery,
    RoomAgain,
)
from kratos_sync.application.trace_context import trace_id

CONFLICTS_IN_A_ROW = 5
# A second doubled so often is longer than any cap, and still no overflow.
MOST_DOUBLINGS = 24

log = structlog.get_logger()

_delivery: ContextVar[tuple[type[Consumer[Any]], PendingDelivery] | None] = ContextVar(
    "delivery", default=None
)


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
        later=[each for one in results for each in one.later],
        error=next((one.error for one in results if one.error is not None), None),
        seconds=sum([one.seconds for one in of_parts], result.seconds),
    )


def _parts(ids: Sequence[UUID], interrupted: PendingDelivery | None) -> list[Sequence[UUID]]:
    if interrupted is not None:
        return [[each for each in ids if each != interrupted.event_id]]
    return [ids[: len(ids) // 2], ids[len(ids) // 2 :]]


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
    if isinstance(error, RoomAgain):
        return replace(result, error=error.__cause__ or error)
    return result


def failure(
    consumer: type[Consumer[Any]], started: Start, delivery: PendingDelivery, error: BaseException
) -> Failure:
    """The failure of an attempt that ended in this error."""
    retry_after = delay_of(error)
    is_postponed = retry_after is not None
    if not is_postponed and not isinstance(error, tuple(consumer.gives_up_on)):
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
    consumer: type[Consumer[Any]],
    lost: Lost,
    error_type: str,
    message: str,
    *,
    shape: str | None = None,
    stack: str = "",
) -> FailedAttempt:
    """The failed attempt of a delivery whose thread or process did not come back.

    The error's shape is its message, unless another one is given.
    """
    return FailedAttempt(
        event_id=lost.event_id,
        consumer=consumer.name,
        number=lost.attempt,
        started_at=lost.since,
        duration=max(datetime.now(UTC) - lost.since, timedelta()),
        error=shorten(f"{stack}{error_type}: {message}"),
        retry_after=backoff(consumer, lost.attempt),
        error_type=error_type,
        error_shape=message if shape is None else shape,
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


def log_outcome(call_next: CallNext, batch: Batch) -> Result:
    """Log a commit in one line, however many events shared it; each failure has its own line."""
    result = call_next(batch)
    if result.error is not None:
        return result
    succeeded = result.succeeded
    took = {"milliseconds": round(result.started.elapsed.total_seconds() * 1000, 1)}
    if len(succeeded) == 1:
        log.info("delivered", **describe(batch.consumer, succeeded[0]), **took)
    elif succeeded:
        log.info("delivered", consumer=batch.consumer.name, events=len(succeeded), **took)
    for failure in result.failed:
        log_failure(batch.consumer, failure)
    return result


def log_failure(consumer: type[Consumer[Any]], failure: Failure) -> None:
    """Log a failed attempt: postponed, to be retried, or the last one."""
    delivery, retry_after = describe(consumer, failure.delivery), failure.attempt.retry_after
    seconds = None if retry_after is None else round(retry_after.total_seconds(), 1)
    if failure.attempt.is_postponed:
        log.info("delivery_postponed", **delivery, retry_after_seconds=seconds)
        return
    event = "delivery_gave_up" if retry_after is None else "delivery_failed"
    log.warning(event, **delivery, **summary(failure.error, consumer), retry_after_seconds=seconds)


class delivering:  # noqa: N801  # used like a function; a generator would cost each event twice that
    """Adds this delivery to every line logged inside, through ``add_delivery``."""

    __slots__ = ("_described", "_token")

    def __init__(self, consumer: type[Consumer[Any]], delivery: PendingDelivery) -> None:
        self._described = consumer, delivery

    def __enter__(self) -> None:
        self._token = _delivery.set(self._described)

    def __exit__(self, *_: object) -> None:
        _delivery.reset(self._token)


def add_delivery(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Add the current delivery to a log line; a structlog processor."""
    # Described when a line is written, not when a delivery begins: most write none.
    if (delivery := _delivery.get()) is not None:
        for key, value in describe(*delivery).items():
            event_dict.setdefault(key, value)
    return event_dict


def describe(consumer: type[Consumer[Any]], delivery: PendingDelivery) -> dict[str, object]:
    """The fields of every line about a delivery: no traits, addresses or keys."""
    return {
        "event_id": str(delivery.event_id),
        "consumer": consumer.name,
        "attempt": delivery.attempt,
        "identity_id": str(delivery.subject),
        "event_name": delivery.name,
        "trace_id": trace_id(delivery.traceparent),
    }
