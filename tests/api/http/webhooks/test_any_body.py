"""Whatever is sent, it is never our fault."""

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message
from structlog.testing import capture_logs

from kratos_sync.api.http.webhooks.handler import KratosWebHookHandler
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler
from kratos_sync.domain.identity import PARTS
from tests.api.http.client import ADA, KEY, config, sync_handler
from tests.fakes.event_bus import RecordingEventBus

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
some_times = st.sampled_from(
    ["0001-01-01T00:00:00Z", "2026-11-23T03:25:11.123456789Z", "9999-12-31T23:59:59-23:59", "", "x"]
)
any_identity = st.fixed_dictionaries(
    {"id": st.just(str(ADA)) | any_json},
    optional=dict.fromkeys(PARTS, any_json | some_times),
)
headers = st.lists(
    st.tuples(
        st.sampled_from([b"ory-webhook-trigger-id", b"traceparent", b"x-kratos-hook"]),
        st.binary(max_size=60),
    ),
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), headers)
def test_any_bytes_are_answered_with_less_than_500(body: bytes, more: list[Any]) -> None:
    assert all(status < 500 for status in answers(body, more))


@settings(max_examples=150, deadline=None)
@given(any_json | st.fixed_dictionaries({"identity": any_json}))
def test_any_json_is_answered_with_less_than_500(value: object) -> None:
    assert all(status < 500 for status in answers(json.dumps(value).encode()))


@settings(max_examples=150, deadline=None)
@given(any_identity)
def test_what_is_recorded_of_any_identity_can_be_stored_as_utf_8_json(identity: object) -> None:
    bus = RecordingEventBus()
    answers(json.dumps({"identity": identity}).encode(), bus=bus)
    for event in bus.events:
        stored = json.dumps(event.to_json(), ensure_ascii=False, allow_nan=False).encode()
        assert b"\\u0000" not in stored


def answers(
    body: bytes,
    headers: list[tuple[bytes, bytes]] | None = None,
    bus: RecordingEventBus | None = None,
) -> list[int]:
    """The statuses that both handlers answer."""
    handlers = [sync_handler(bus or RecordingEventBus()), KratosIdentityParseHandler(config())]
    with capture_logs():
        return asyncio.run(_ask(handlers, body, headers or []))


async def _ask(
    handlers: list[KratosWebHookHandler], body: bytes, headers: list[tuple[bytes, bytes]]
) -> list[int]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    needed = [(b"x-api-key", KEY.encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "headers": [*needed, *headers]}
    return [(await each.handle(Request(scope, receive))).status_code for each in handlers]
