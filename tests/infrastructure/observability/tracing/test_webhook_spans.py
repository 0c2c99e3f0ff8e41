"""A span for each call of a webhook, which continues the trace of Kratos."""

import asyncio
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
import structlog
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from structlog.testing import capture_logs

from kratos_sync.api.http.webhooks.sync_identity import AcceptedCalls
from kratos_sync.application.trace_context import WELL_FORMED, is_sampled, trace_id
from kratos_sync.infrastructure.observability.tracing.sampling import CappedSampler
from kratos_sync.infrastructure.telemetry import add_span
from tests.api.http.client import PARSE, SYNC, Api, recorded_webhooks, sync_handler
from tests.fakes.event_bus import RecordingEventBus
from tests.infrastructure.observability.tracing.traced import (
    CALLER,
    TRACE,
    UNSAMPLED,
    Traced,
    parent_of,
    traceparent_of,
)
from tests.suites.occurrences import updated
from tests.waiting import until_on_loop

CALL = recorded_webhooks()[0]


def traced_api(traced: Traced, bus: RecordingEventBus | None = None, **options: Any) -> Api:
    api = Api(bus, **options)
    api.app = traced.tracing.webhooks(api.app, (SYNC, PARSE))
    return api


def post(api: Api, traceparent: str | None, path: str = SYNC) -> httpx.Response:
    another = {"Ory-Webhook-Trigger-Id": str(uuid4()), "traceparent": traceparent}
    headers: Mapping[str, str | None] = {**CALL.headers, **another}
    return api.post(path, CALL.content, headers)


def test_a_webhook_continues_the_trace_of_kratos() -> None:
    traced = Traced()

    assert post(traced_api(traced), CALLER).status_code == 200

    span = traced.only
    assert (span.name, span.kind) == ("POST /kratos/sync-identity", SpanKind.SERVER)
    assert parent_of(span) == CALLER
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/kratos/sync-identity",
        "url.path": "/kratos/sync-identity",
        "url.scheme": "http",
        "http.response.status_code": 200,
    }
    assert span.status.status_code is StatusCode.UNSET


def test_the_event_is_recorded_with_the_context_of_the_call() -> None:
    traced = Traced()
    api = traced_api(traced)

    post(api, CALLER)

    ((_, provenance),) = api.bus.published
    assert provenance.traceparent == traceparent_of(traced.only)


@pytest.mark.parametrize("sent", [None, "00-ada-lovelace-01", CALLER.upper()])
def test_a_call_without_a_trace_begins_one(sent: str | None) -> None:
    traced = Traced()
    api = traced_api(traced)

    post(api, sent)

    assert parent_of(traced.only) is None
    ((_, provenance),) = api.bus.published
    assert provenance.traceparent == traceparent_of(traced.only)


def test_an_event_of_a_trace_that_is_not_sampled_says_so() -> None:
    traced = Traced()
    api = traced_api(traced)

    post(api, UNSAMPLED)

    assert not traced.spans
    ((_, provenance),) = api.bus.published
    assert trace_id(provenance.traceparent) == TRACE
    assert provenance.traceparent is not None
    assert WELL_FORMED.fullmatch(provenance.traceparent)
    assert not is_sampled(provenance.traceparent)


def test_strangers_cannot_have_more_sampled_than_the_cap() -> None:
    traced = Traced(CappedSampler(3, ALWAYS_OFF, ALWAYS_OFF, lambda: 0.0))
    api = traced_api(traced)

    for number in range(1, 50):
        post(api, f"00-{number:032x}-00f067aa0ba902b7-01")

    assert len(traced.spans) == 3
    sampled = [is_sampled(provenance.traceparent) for _, provenance in api.bus.published]
    assert sampled == [True] * 3 + [False] * 46


def test_a_rejected_call_is_an_error_of_the_caller() -> None:
    traced = Traced()

    traced_api(traced).post(SYNC, b"{", {"traceparent": CALLER})

    assert traced.only.attributes is not None
    assert traced.only.attributes["http.response.status_code"] == 400
    assert traced.only.status.status_code is StatusCode.UNSET


def test_a_call_that_the_ledger_cannot_take_is_our_error() -> None:
    traced, bus = Traced(), RecordingEventBus()
    bus.be_unavailable()
    handler = sync_handler(bus, max_wait=timedelta())

    assert post(traced_api(traced, bus, sync=handler), CALLER).status_code == 503

    assert traced.only.attributes is not None
    assert traced.only.attributes["error.type"] == "503"
    assert traced.only.status.status_code is StatusCode.ERROR


def test_an_application_that_raises_ends_the_span_with_the_type() -> None:
    async def broken(*_: object) -> None:
        raise ValueError("ada@example.org is no number")

    traced = Traced()
    api = Api()
    api.app = traced.tracing.webhooks(broken, [SYNC])

    with pytest.raises(ValueError, match="no number"):
        post(api, CALLER)

    assert traced.only.attributes is not None
    assert traced.only.attributes["error.type"] == "ValueError"
    assert "example.org" not in traced.only.to_json()
    assert not get_current_span().get_span_context().is_valid


def test_neither_query_nor_headers_nor_body_are_in_a_span() -> None:
    traced = Traced()

    traced_api(traced).post(
        f"{SYNC}?email=ada@example.org",
        CALL.content,
        {**CALL.headers, "User-Agent": "ada-s-agent", "X-Kratos-Hook": "ada-s-hook"},
    )

    written = traced.only.to_json()
    # As a word: the hex digits of a trace id may spell it.
    assert not re.search(r"\bada\b", written, re.IGNORECASE)
    assert CALL.body["identity"]["id"] not in written


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health/live"), ("GET", SYNC), ("POST", "/nowhere")]
)
def test_what_is_no_webhook_is_not_traced(method: str, path: str) -> None:
    traced = Traced()

    traced_api(traced).request(method, path)

    assert not traced.spans


def test_a_parse_hook_is_traced_under_its_route() -> None:
    traced = Traced()

    post(traced_api(traced), CALLER, PARSE)

    assert traced.only.name == "POST /kratos/parse-identity"


def test_lines_of_a_call_carry_the_ids_of_its_span() -> None:
    traced = Traced()
    api = traced_api(traced)

    with capture_logs(processors=[add_span]) as lines:
        post(api, CALLER)
        structlog.get_logger().info("idle")

    (accepted, idle) = lines
    context = traced.only.get_span_context()
    assert context is not None
    assert accepted["event"] == "webhook_accepted"
    assert (accepted["trace_id"], accepted["span_id"]) == (TRACE, f"{context.span_id:016x}")
    assert "trace_id" not in idle


def test_a_line_about_several_calls_has_the_ids_of_none() -> None:
    traced = Traced()
    tracer = traced.provider.get_tracer("test")

    async def accept_two(lines: list[Any]) -> None:
        accepted = AcceptedCalls()
        for number in (1, 2):
            with tracer.start_as_current_span("call"):
                accepted.add(updated(number), None, is_duplicate=False)
        await until_on_loop(lambda: lines)

    with capture_logs(processors=[add_span]) as lines:
        asyncio.run(accept_two(lines))

    (line,) = lines
    assert line["calls"] == 2
    assert "trace_id" not in line
