"""A CONSUMER span for each part of a batch that is tried, as an observer of the pipeline."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context

from kratos_sync.application.errors import name_of
from kratos_sync.application.pipeline import Batch, CallNext, Result
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.application.trace_context import is_sampled
from kratos_sync.infrastructure.observability.tracing import names
from kratos_sync.infrastructure.observability.tracing.contexts import (
    links_to,
    parent_of,
    to_traceparent,
)

LONGEST_TRACE: Final = timedelta(minutes=15)
"""An event that was recorded earlier, as in a replay, begins a new trace with a link."""


class BatchSpans:
    """An observer of the pipeline that traces what it sees."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __call__(self, call_next: CallNext, batch: Batch) -> Result:
        """Run the batch; while its consumer runs, its span is the current one."""
        trace = _BatchTrace(self._tracer, batch)
        try:
            result = call_next(replace(batch, trace=trace))
        except BaseException as error:
            trace.end(Result(batch.started, error=error))
            raise
        trace.end(result)
        return result


class _BatchTrace:
    """The BatchTrace port; the span begins when the deliveries are known, for its parent's sake."""

    def __init__(self, tracer: Tracer, batch: Batch) -> None:
        self._tracer = tracer
        self._batch = batch
        self._span: Span | None = None
        self._deliveries: Sequence[PendingDelivery] = ()
        self._own: str | None = None

    def opened(self, deliveries: Sequence[PendingDelivery]) -> None:
        # A transaction that lost a race opens them again: it is the same try.
        if self._span is not None or not deliveries:
            return
        self._deliveries = deliveries
        parent, links = _origin(deliveries)
        consumer = self._batch.consumer.name
        self._span = self._tracer.start_span(
            f"process {consumer}",
            parent,
            SpanKind.CONSUMER,
            {
                names.MESSAGING_SYSTEM: names.SCOPE,
                names.MESSAGING_OPERATION_NAME: "process",
                names.MESSAGING_OPERATION_TYPE: "process",
                names.MESSAGING_DESTINATION_NAME: consumer,
            },
            links,
            _nanoseconds(self._batch.started.at),
        )
        self._token = attach(set_span_in_context(self._span))
        if self._span.get_span_context().trace_flags.sampled:
            self._own = to_traceparent(self._span.get_span_context())

    def context_after(self, traceparent: str | None) -> str | None:
        # What a caller decided not to sample stays so, although the batch is sampled for others.
        if self._own is None or (traceparent is not None and not is_sampled(traceparent)):
            return traceparent
        return self._own

    def end(self, result: Result) -> None:
        """Say what became of the batch."""
        if self._span is None:
            return
        detach(self._token)
        if self._span.is_recording():
            self._span.set_attributes({**_what(self._deliveries), **_counts(result)})
            if (error := _error_type(result)) is not None:
                self._span.set_attribute(names.ERROR_TYPE, error)
                self._span.set_status(StatusCode.ERROR)
        self._span.end()


def _origin(deliveries: Sequence[PendingDelivery]) -> tuple[Context, list[Link]]:
    """The parent of a batch's span, and its links."""
    first = deliveries[0]
    if len(deliveries) == 1 and first.attempt == 1 and first.traceparent and _is_recent(first):
        return parent_of(first.traceparent), []
    return Context(), links_to(each.traceparent for each in deliveries)


def _is_recent(delivery: PendingDelivery) -> bool:
    at = delivery.recorded_at
    return at is None or datetime.now(UTC) - at < LONGEST_TRACE


def _what(deliveries: Sequence[PendingDelivery]) -> dict[str, str | int]:
    if len(deliveries) > 1:
        return {names.MESSAGING_BATCH_MESSAGE_COUNT: len(deliveries)}
    (only,) = deliveries
    return {
        names.MESSAGING_MESSAGE_ID: str(only.event_id),
        names.EVENT_NAME: only.name,
        names.ATTEMPT: only.attempt,
    }


def _counts(result: Result) -> dict[str, int]:
    attempts = [failure.attempt for failure in result.failed]
    postponed = sum(attempt.is_postponed for attempt in attempts)
    dead = sum(not each.is_postponed and each.retry_after is None for each in attempts)
    counts = {
        names.SUCCEEDED: len(result.succeeded),
        names.FAILED: len(attempts) - postponed - dead,
        names.POSTPONED: postponed,
        names.DEAD: dead,
        names.UNPROCESSED: len(result.unprocessed) + len(result.quarantined),
    }
    return {name: count for name, count in counts.items() if count}


def _error_type(result: Result) -> str | None:
    if result.error is not None:
        return name_of(type(result.error))
    attempts = [failure.attempt for failure in result.failed]
    return next((each.error_type for each in attempts if not each.is_postponed), None)


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000
