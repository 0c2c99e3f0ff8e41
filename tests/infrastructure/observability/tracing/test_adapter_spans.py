"""Spans of requests to Kratos, and of commits."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import SecretStr

from kratos_sync.application.ports.kratos import KratosRefused, KratosUnavailable
from kratos_sync.application.trace_context import is_sampled
from kratos_sync.infrastructure.kratos.admin_api import HttpKratosAdmin
from kratos_sync.infrastructure.observability.tracing.sampling import CappedSampler
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.infrastructure.kratos.clock import Clock
from tests.infrastructure.observability.tracing.traced import (
    ANOTHER,
    CALLER,
    UNSAMPLED,
    Traced,
    linked_to,
    parent_of,
    traceparent_of,
)
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.kratos.reply import broken, says


@pytest.fixture
def kratos() -> Iterator[AdminStandIn]:
    with AdminStandIn(InMemoryDocuments()) as stand_in:
        yield stand_in


def admin_of(kratos: AdminStandIn, traced: Traced) -> HttpKratosAdmin:
    clock = Clock()
    url = kratos.url.replace("http://", "http://ada:s3cret@")
    return HttpKratosAdmin(
        SecretStr(url), pause=clock.pause, clock=clock, spans=traced.tracing.spans
    )


def test_a_request_carries_its_span_to_kratos(kratos: AdminStandIn) -> None:
    traced = Traced()
    ada = kratos.people.put(person())

    with traced.provider.get_tracer("test").start_as_current_span("outer"):
        admin_of(kratos, traced).find(ada)

    request, outer = traced.spans
    assert (request.name, request.kind) == ("GET /admin/identities/{id}", SpanKind.CLIENT)
    assert parent_of(request) == traceparent_of(outer)
    assert kratos.seen[0].headers["traceparent"] == traceparent_of(request)
    port = int(kratos.url.rpartition(":")[2])
    assert dict(request.attributes or {}) == {
        "kratos_sync.operation": "find",
        "http.request.method": "GET",
        "url.template": "/admin/identities/{id}",
        "url.full": f"{kratos.url}/admin/identities/{{id}}",
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.response.status_code": 200,
    }


def test_no_operation_shows_ids_queries_or_passwords(kratos: AdminStandIn) -> None:
    traced = Traced()
    admin = admin_of(kratos, traced)
    ada = kratos.people.put(person())

    admin.find(ada)
    admin.find_all([ada, uuid4()])
    admin.page(None)
    admin.delete(ada)

    assert [
        (span.name, (span.attributes or {})["kratos_sync.operation"]) for span in traced.spans
    ] == [
        ("GET /admin/identities/{id}", "find"),
        ("GET /admin/identities", "find_all"),
        ("GET /admin/identities", "page"),
        ("DELETE /admin/identities/{id}", "delete"),
    ]
    written = "".join(span.to_json() for span in traced.spans)
    for secret in (str(ada), "s3cret", "page_size", "ids="):
        assert secret not in written


def test_each_try_of_a_request_is_a_span(kratos: AdminStandIn) -> None:
    traced = Traced()
    kratos.next(broken(503), broken(429), None)

    admin_of(kratos, traced).find(uuid4())

    statuses = [(span.attributes or {})["http.response.status_code"] for span in traced.spans]
    assert statuses == [503, 429, 404]
    assert [span.status.status_code for span in traced.spans] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    assert [(span.attributes or {}).get("error.type") for span in traced.spans] == [
        "503",
        "429",
        None,
    ]


def test_a_refusal_is_an_error_by_its_status(kratos: AdminStandIn) -> None:
    traced = Traced()
    kratos.next(says(b'{"error": "ada@example.org"}', 400))

    with pytest.raises(KratosRefused):
        admin_of(kratos, traced).find(uuid4())

    assert (traced.only.attributes or {})["error.type"] == "400"
    assert "example.org" not in traced.only.to_json()


def test_a_request_without_an_answer_is_named_by_its_error() -> None:
    traced, clock = Traced(), Clock()
    spans = traced.tracing.spans
    nowhere = HttpKratosAdmin(
        SecretStr("http://127.0.0.1:9"), pause=clock.pause, clock=clock, spans=spans
    )

    with pytest.raises(KratosUnavailable):
        nowhere.find(uuid4())

    assert {(span.attributes or {})["error.type"] for span in traced.spans} == {
        "httpcore.ConnectError"
    }


def test_kratos_receives_that_a_trace_is_not_sampled(kratos: AdminStandIn) -> None:
    traced = Traced(CappedSampler(0))

    admin_of(kratos, traced).find(uuid4())

    assert not is_sampled(kratos.seen[0].headers["traceparent"])
    assert not traced.spans


def test_a_commit_of_one_event_is_part_of_its_call() -> None:
    traced = Traced()

    with traced.tracing.spans.commit(iter([CALLER])):
        pass

    assert (traced.only.name, traced.only.kind) == (
        "record kratos_sync.events",
        SpanKind.PRODUCER,
    )
    assert parent_of(traced.only) == CALLER
    assert dict(traced.only.attributes or {}) == {
        "messaging.system": "kratos_sync",
        "messaging.operation.name": "record",
        "messaging.operation.type": "send",
        "messaging.destination.name": "kratos_sync.events",
    }


def test_a_commit_of_several_calls_links_to_those_that_are_sampled() -> None:
    traced = Traced()

    with traced.tracing.spans.commit([CALLER, UNSAMPLED, None, ANOTHER]):
        pass

    assert (parent_of(traced.only), linked_to(traced.only)) == (None, [CALLER, ANOTHER])
    assert (traced.only.attributes or {})["messaging.batch.message_count"] == 4


@pytest.mark.parametrize("contexts", [[], [None], [UNSAMPLED, None]])
def test_a_commit_of_nothing_that_is_sampled_has_no_span(contexts: list[str | None]) -> None:
    traced = Traced()

    with traced.tracing.spans.commit(contexts):
        pass

    assert not traced.spans


def test_a_commit_that_fails_is_named_by_its_error() -> None:
    traced = Traced()

    with pytest.raises(ValueError), traced.tracing.spans.commit([CALLER]):  # noqa: PT011
        raise ValueError("ada@example.org")

    assert (traced.only.attributes or {})["error.type"] == "ValueError"
    assert "example.org" not in traced.only.to_json()
