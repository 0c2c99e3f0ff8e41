"""Trace contexts: as events and headers carry them, and as OpenTelemetry has them."""

from collections.abc import Iterable

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    set_span_in_context,
)

from kratos_sync.application.trace_context import WELL_FORMED, is_sampled

MOST_LINKS = 128
"""The SDK keeps no more."""


def to_traceparent(context: SpanContext) -> str:
    """The header that says this context."""
    flags = context.trace_flags & TraceFlags.SAMPLED
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"


def parent_of(traceparent: str | None) -> Context:
    """The context whose span is the parent; without one a new trace begins."""
    if traceparent is None or WELL_FORMED.fullmatch(traceparent) is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(_span_context(traceparent)), Context())


def links_to(traceparents: Iterable[str | None]) -> list[Link]:
    """A link to each of these contexts that is sampled, and to none twice."""
    sampled = dict.fromkeys(each for each in traceparents if each and is_sampled(each))
    return [Link(_span_context(each)) for each in list(sampled)[:MOST_LINKS]]


def _span_context(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
