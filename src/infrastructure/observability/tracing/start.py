"""Starts tracing in a process, if it is configured: nothing of OpenTelemetry is imported before."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import structlog

from kratos_sync.application.pipeline import Middleware
from kratos_sync.infrastructure.observability.otlp_wanted import is_wanted, why_not
from kratos_sync.infrastructure.observability.spans import NO_SPANS, Spans

log = structlog.get_logger()


class Tracing:
    """What a process composes in order to trace its work; nothing is traced by default."""

    spans: Spans = NO_SPANS
    observers: tuple[Middleware, ...] = ()
    """Around every part of a batch."""

    def webhooks(self, app: Any, paths: Collection[str]) -> Any:  # noqa: ARG002
        """The ASGI application with a span around each call of these paths."""
        return app


NOT_TRACED: Final = Tracing()


@contextmanager
def started(
    process: str,
    per_second: float,
    *,
    with_statements: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[Tracing]:
    """Trace this process, which has just been started, and export what is left in the end.

    ``per_second`` traces are sampled at least, whoever began them. A process that cannot trace
    says why in a log line, and works without.
    """
    if not is_wanted("TRACES", environment):
        yield NOT_TRACED
        return
    if reason := why_not("TRACES", environment):
        log.warning("not_traced", reason=reason)
        yield NOT_TRACED
        return
    from kratos_sync.infrastructure.observability.tracing.provider import trace_process

    tracing = trace_process(process, per_second, with_statements=with_statements)
    try:
        yield tracing
    finally:
        tracing.stop()
