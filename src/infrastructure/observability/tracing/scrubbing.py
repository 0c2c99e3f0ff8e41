"""Removes from spans what may hold personal data, before they leave the process.

Our own spans have none of it. Those of libraries, and of an application's consumers, quote errors
and statements.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status
from opentelemetry.util.types import AttributeValue

_TEXTS: Final = frozenset(
    {
        "db.statement",
        "db.query.text",
        "db.query.summary",
        "db.user",
        "exception.message",
        "exception.stacktrace",
        "url.query",
        "http.url",
        "http.target",
    }
)
_PARAMETERS: Final = ("db.query.parameter", "db.operation.parameter", "db.statement.parameters")


class ScrubbingExporter(SpanExporter):
    """Exports spans without the texts of errors and statements; types and names stay."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([scrubbed(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def scrubbed(span: ReadableSpan) -> ReadableSpan:
    """The span, or a copy of it without what it may quote."""
    attributes = span.attributes or {}
    kept = _without_texts(attributes)
    if len(kept) == len(attributes) and not span.events and span.status.description is None:
        return span
    events = [
        Event(event.name, _without_texts(event.attributes or {}), event.timestamp)
        for event in span.events
    ]
    return ReadableSpan(
        span.name,
        span.context,
        span.parent,
        span.resource,
        kept,
        events,
        span.links,
        span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _without_texts(attributes: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    return {
        name: value
        for name, value in attributes.items()
        if name not in _TEXTS and not name.startswith(_PARAMETERS)
    }
