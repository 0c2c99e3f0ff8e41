"""Tracing whose spans a test looks at, without a process or a collector."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from kratos_sync.infrastructure.observability.tracing.provider import OpenTelemetry
from kratos_sync.infrastructure.observability.tracing.sampling import CappedSampler
from kratos_sync.infrastructure.observability.tracing.scrubbing import ScrubbingExporter

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"
UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"
ANOTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traced:
    """Traces into a list; by default nothing is over the cap."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler or CappedSampler(1_000), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(ScrubbingExporter(self._exporter)))
        self.tracing = OpenTelemetry(self.provider)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """The spans that have ended."""
        return self._exporter.get_finished_spans()

    @property
    def only(self) -> ReadableSpan:
        """The one span."""
        (span,) = self.spans
        return span


def traceparent_of(span: ReadableSpan) -> str:
    """The context of a sampled span."""
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"


def parent_of(span: ReadableSpan) -> str | None:
    """The context of a span's parent, which is sampled."""
    parent = span.parent
    return None if parent is None else f"00-{parent.trace_id:032x}-{parent.span_id:016x}-01"


def linked_to(span: ReadableSpan) -> list[str]:
    """The contexts that a span links to."""
    return [f"00-{e.context.trace_id:032x}-{e.context.span_id:016x}-01" for e in span.links]
