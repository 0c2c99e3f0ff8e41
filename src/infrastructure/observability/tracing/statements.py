"""Spans of statements to PostgreSQL and commands to Redis, by their instrumentations.

They are within a batch's span, or none: the sampler drops what begins no trace.
"""

import structlog
from opentelemetry.trace import TracerProvider

log = structlog.get_logger()


def trace_statements(provider: TracerProvider) -> None:
    """Trace the connections that are made from now on."""
    try:
        from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
        from opentelemetry.instrumentation.redis import RedisInstrumentor
    except ModuleNotFoundError:
        reason = "kratos-identity-sync is installed without its extra otel-instrumentation"
        log.warning("statements_not_traced", reason=reason)
        return
    PsycopgInstrumentor().instrument(tracer_provider=provider)
    RedisInstrumentor().instrument(tracer_provider=provider)
