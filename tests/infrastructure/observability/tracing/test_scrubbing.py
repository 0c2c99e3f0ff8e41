"""What leaves the process quotes neither errors nor statements, whoever made the span."""

import pytest
from opentelemetry.trace import Status, StatusCode

from tests.infrastructure.observability.tracing.traced import Traced

ADDRESS = "ada@example.org"


def test_an_error_is_exported_by_its_type_alone() -> None:
    traced = Traced()
    tracer = traced.provider.get_tracer("an.application")

    with pytest.raises(ValueError), tracer.start_as_current_span("greet"):  # noqa: PT011
        raise ValueError(f"cannot greet {ADDRESS}")

    span = traced.only
    assert ADDRESS not in span.to_json()
    (event,) = span.events
    assert (event.name, dict(event.attributes or {})) == (
        "exception",
        {"exception.type": "ValueError", "exception.escaped": "False"},
    )
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)


def test_a_statement_is_exported_without_its_text() -> None:
    traced = Traced()
    tracer = traced.provider.get_tracer("a.library")
    texts = {
        "db.statement": f"SELECT '{ADDRESS}'",
        "db.query.text": f"SELECT '{ADDRESS}'",
        "db.query.parameter.email": ADDRESS,
        "db.statement.parameters": f"('{ADDRESS}',)",
        "url.query": f"email={ADDRESS}",
    }
    kept = {"db.system": "postgresql", "db.operation.name": "SELECT"}

    with (
        tracer.start_as_current_span("outer"),
        tracer.start_as_current_span("SELECT", attributes={**texts, **kept}),
    ):
        pass

    statement, _ = traced.spans
    assert dict(statement.attributes or {}) == kept


def test_a_span_is_the_same_otherwise() -> None:
    traced = Traced()
    tracer = traced.provider.get_tracer("an.application", "1.2", "https://example.org/schema")
    with tracer.start_as_current_span("outer") as outer:
        span = tracer.start_span("inner", attributes={"db.statement": "x", "kept": 1})
        span.set_status(Status(StatusCode.ERROR, ADDRESS))
        context = span.get_span_context()
        span.end()

    inner, _ = traced.spans
    assert (inner.name, inner.get_span_context()) == ("inner", context)
    assert inner.parent == outer.get_span_context()
    assert inner.end_time is not None
    assert inner.start_time is not None
    assert inner.end_time >= inner.start_time
    assert inner.resource.attributes["telemetry.sdk.name"] == "opentelemetry"
    assert inner.instrumentation_scope is not None
    assert inner.instrumentation_scope.version == "1.2"
    assert dict(inner.attributes or {}) == {"kept": 1}
