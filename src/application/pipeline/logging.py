"""What the log says of a batch and its deliveries."""

from contextvars import ContextVar
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.errors import summary
from kratos_sync.application.pipeline.batch import Batch, CallNext, Failure, Result
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.application.trace_context import trace_id

log = structlog.get_logger()

_delivery: ContextVar[tuple[type[Consumer[Any]], PendingDelivery] | None] = ContextVar(
    "delivery", default=None
)


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
