"""OpenTelemetry in this process: what it exports, where to, and the end of it."""

import os
import threading
from collections.abc import Collection
from importlib.metadata import version
from typing import Any, Final
from uuid import uuid4

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

from kratos_sync.infrastructure.observability.tracing import names
from kratos_sync.infrastructure.observability.tracing.adapter_spans import AdapterSpans
from kratos_sync.infrastructure.observability.tracing.batch_spans import BatchSpans
from kratos_sync.infrastructure.observability.tracing.sampling import sampler_of
from kratos_sync.infrastructure.observability.tracing.scrubbing import ScrubbingExporter
from kratos_sync.infrastructure.observability.tracing.start import Tracing
from kratos_sync.infrastructure.observability.tracing.webhook_spans import TracedWebhooks

DISTRIBUTION: Final = "kratos-identity-sync"
STOP_SECONDS: Final = 2.0
"""The longest that the end of a process waits for its last spans to be exported."""


def resource_of(process: str) -> Resource:
    """What exports, with a name that OTEL_SERVICE_NAME may replace."""
    return Resource.create(
        {
            names.SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or f"kratos-sync-{process}",
            names.SERVICE_VERSION: version(DISTRIBUTION),
            names.SERVICE_INSTANCE_ID: str(uuid4()),
        }
    )


def trace_process(
    process: str, per_second: float, *, with_statements: bool = False
) -> "OpenTelemetry":
    """Trace this process from now on; libraries and consumers find the tracer provider too."""
    exporter = ScrubbingExporter(OTLPSpanExporter())
    provider = provider_of(process, sampler_of(per_second), exporter)
    trace.set_tracer_provider(provider)
    if with_statements:
        from kratos_sync.infrastructure.observability.tracing.statements import (
            trace_statements,
        )

        trace_statements(provider)
    return OpenTelemetry(provider)


class OpenTelemetry(Tracing):
    """Traces with this provider."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer(
            names.SCOPE, version(DISTRIBUTION), schema_url=names.SCHEMA_URL
        )
        self.spans = AdapterSpans(self._tracer)
        self.observers = (BatchSpans(self._tracer),)

    def webhooks(self, app: Any, paths: Collection[str]) -> Any:
        return TracedWebhooks(app, self._tracer, paths)

    def stop(self) -> None:
        """Export what is left, for a short time."""
        last = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        last.start()
        last.join(STOP_SECONDS)


def provider_of(process: str, sampler: Sampler | None, exporter: SpanExporter) -> TracerProvider:
    """A provider that exports from a thread of this process, out of a bounded queue."""
    provider = TracerProvider(sampler, resource_of(process), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
