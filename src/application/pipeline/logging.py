"""What the log says of a batch and its deliveries."""

import re
import traceback
from contextvars import ContextVar
from pathlib import Path
from traceback import StackSummary, extract_tb
from typing import Any, Final

import structlog
from structlog.typing import EventDict, WrappedLogger

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline.batch import Batch, CallNext, Failure, Result
from kratos_sync.application.ports.unit_of_work import PendingDelivery

LONGEST_ERROR: Final = 8_000
LONGEST_SHAPE: Final = 200
LONGEST_TYPE: Final = 200
_LONGEST_LINE: Final = 1_000

# What differs from one event to the next, and what may be a person's.
_PARTICULARS: Final = (
    (re.compile(r"\S+@\S+"), "…"),
    (re.compile(r"=\s*\([^()]*\)"), "=(…)"),
    # Not the apostrophes of "can't" and "O'Brien"; and one that is never closed goes on to the end.
    (re.compile(r"(?<!\w)(['\"`])(?:.*?\1(?!\w)|.*)|“[^”]*”?|‘[^’]*’?|«[^»]*»?"), "'…'"),
    (re.compile(r"\b[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,}){0,4}\b"), "#"),
    (re.compile(r"[+-]?\d[\d.,:_]*"), "#"),
    # Names: a word with a capital that begins no sentence, and what is not English.
    (re.compile(r"(?<=[\w,;:)] )[A-Z][a-z]\w*|\b\w*[^\x00-\x7f]\w*\b"), "…"),
)


class OtherLedgerUnavailable(Exception):
    """A consumer raised LedgerUnavailable: for our own ledger only the unit of work does that."""


def explain(error: BaseException) -> str:
    """Give the error and its traceback, cut in the middle to a bounded size."""
    return shorten("".join(traceback.format_exception(error)).strip())


def shorten(text: str) -> str:
    """Cut a text in the middle to a bounded size."""
    if len(text) <= LONGEST_ERROR:
        return text
    half = LONGEST_ERROR // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters cut …\n{text[-half:]}"


def type_of(error: BaseException) -> str:
    """Give the error's type as a traceback names it; our own go by their bare names."""
    kind = type(error)
    module = str(kind.__module__)
    if module == "builtins" or module.startswith("kratos_sync."):
        return kind.__qualname__[:LONGEST_TYPE]
    return f"{module}.{kind.__qualname__}"[:LONGEST_TYPE]


def shape_of(error: BaseException) -> str:
    """Give the first line of the error's message, without what differs between events.

    Numbers, ids, addresses, names and whatever stands in quotes are left out, so that errors of one
    kind have one shape, and it quotes as little as can be told from its form.
    """
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001  # an error that cannot even be told is one shape too
        return "(no message)"
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")[:_LONGEST_LINE]
    for pattern, instead in _PARTICULARS:
        line = pattern.sub(instead, line)
    return line[:LONGEST_SHAPE]


def trace_id(traceparent: str | None) -> str | None:
    """Give the trace id of a ``traceparent`` header (version-traceid-parentid-flags)."""
    parts = traceparent.split("-") if traceparent else []
    return parts[1] if len(parts) >= 4 else None  # noqa: PLR2004


log = structlog.get_logger()

_delivery: ContextVar[tuple[type[Consumer[Any]], PendingDelivery] | None] = ContextVar(
    "delivery", default=None
)


def log_outcome(call_next: CallNext, batch: Batch) -> Result:
    """Log what was committed: one line for a transaction, however many events shared it.

    Each failure among them has a line of its own.
    """
    result = call_next(batch)
    if result.error is not None:
        return result
    name, succeeded = batch.consumer.name, result.succeeded
    took = {"milliseconds": round(result.started.elapsed.total_seconds() * 1000, 1)}
    if len(succeeded) == 1:
        log.info("delivered", **describe(batch.consumer, succeeded[0]), **took)
    elif succeeded:
        log.info("delivered", consumer=name, events=len(succeeded), **took)
    for failure in result.failed:
        log_failure(batch.consumer, failure)
    return result


def log_failure(consumer: type[Consumer[Any]], failure: Failure) -> None:
    """Log that an attempt failed, and for good if it will not be tried again."""
    retry_after = failure.attempt.retry_after
    if failure.attempt.is_postponed and retry_after is not None:
        seconds = round(retry_after.total_seconds(), 1)
        log.info(
            "delivery_postponed",
            **describe(consumer, failure.delivery),
            retry_after_seconds=seconds,
        )
        return
    log.warning(
        "delivery_gave_up" if retry_after is None else "delivery_failed",
        **describe(consumer, failure.delivery),
        error=type(failure.error).__name__,
        at=where(failure.error),
        retry_after_seconds=None if retry_after is None else round(retry_after.total_seconds(), 1),
    )


class delivering:  # noqa: N801  # used like a function; a generator would cost each event twice that
    """Let every line logged inside carry this delivery, through ``add_delivery``."""

    __slots__ = ("_described", "_token")

    def __init__(self, consumer: type[Consumer[Any]], delivery: PendingDelivery) -> None:
        self._described = consumer, delivery

    def __enter__(self) -> None:
        self._token = _delivery.set(self._described)

    def __exit__(self, *_: object) -> None:
        _delivery.reset(self._token)


def add_delivery(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Add the delivery at hand to a log line; a structlog processor."""
    # Described when a line is written, not when a delivery begins: most write none.
    if (delivery := _delivery.get()) is not None:
        for key, value in describe(*delivery).items():
            event_dict.setdefault(key, value)
    return event_dict


def describe(consumer: type[Consumer[Any]], delivery: PendingDelivery) -> dict[str, object]:
    """Give what every line of a delivery carries; no traits, addresses or keys."""
    return {
        "event_id": str(delivery.event_id),
        "consumer": consumer.name,
        "attempt": delivery.attempt,
        "identity_id": str(delivery.subject),
        "event_name": delivery.name,
        "trace_id": trace_id(delivery.traceparent),
    }


def where(error: BaseException) -> str:
    """Give the place that an error was raised at: a log may name it, and never its text."""
    return place_of(extract_tb(error.__traceback__))


def place_of(frames: StackSummary) -> str:
    """Give the innermost place of a stack."""
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
