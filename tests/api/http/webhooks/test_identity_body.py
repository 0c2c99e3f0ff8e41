"""Any body: it is answered with less than 500, and read as the json module reads it."""

import asyncio
import json
from typing import Any, NoReturn
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message
from structlog.testing import capture_logs

from kratos_sync.api.http.webhooks.handler import KratosWebHookHandler
from kratos_sync.api.http.webhooks.identity_body import read_identity, usual_id
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler
from kratos_sync.application.json_body import finite
from kratos_sync.domain.identity import PARTS, Identity
from tests.api.http.client import ADA as ADAS_ID
from tests.api.http.client import KEY, config, sync_handler
from tests.fakes.event_bus import RecordingEventBus
from tests.recorded import thirteen_calls, two_hundred_lives

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
some_times = st.sampled_from(
    ["0001-01-01T00:00:00Z", "2026-11-23T03:25:11.123456789Z", "9999-12-31T23:59:59-23:59", "", "x"]
)
any_identity = st.fixed_dictionaries(
    {"id": st.just(str(ADAS_ID)) | any_json},
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


ADA = "e52e75c7-afbb-4316-a4ef-3977a428a2ca"
RECORDED = [*thirteen_calls().calls, *two_hundred_lives().calls]
LIKE_HERS: dict[str, Any] = next(
    call.identity for call in RECORDED if len(call.identity.get("verifiable_addresses", ())) > 1
)


def read_by_json(body: bytes) -> Identity | None:
    """The identity in a body by the json module and the domain; None if there is none."""
    try:
        value = json.loads(body.decode(), parse_float=finite, parse_constant=refuse)
        return Identity.from_kratos(value["identity"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def read(body: bytes) -> tuple[UUID, Identity | None] | None:
    try:
        with capture_logs():
            return read_identity(body)
    except ValueError:
        return None


def test_whatever_kratos_sent_is_usual() -> None:
    assert len(RECORDED) == 879
    for call in RECORDED:
        by_json = read_by_json(call.body)
        assert by_json is not None
        assert read(call.body) == (usual_id(call.body), None) == (by_json.id, None)
        assert by_json.id == UUID(call.person)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b'{"identity": null}',
        b'{"identity": {}}',
        b'{"identity": {"id": null}}',
        b'{"identity": {"id": "00000000-0000-0000-0000-000000000000"}}',
        b'{"identity": {"id": "e52e75c7afbb4316a4ef3977a428a2ca"}}',
        b'{"identity": {"id": "%s"}, "flow": 1}',
        b'{"identity": {"id": "%s", "credentials": {}}}',
        b'{"identity": {"id": "%s", "\\u0063redentials": {}}}',
        b'{"identity": {"credentials": {}}, "identity": {"id": "%s"}}',
        b'{"identity": {"id": "%s", "metadata_admin": {}}}',
        b'{"identity": {"id": "%s", "mood": "new to us"}}',
        b'{"identity": {"id": "%s", "updated_at": "yesterday"}}',
        b'{"identity": {"id": "%s", "updated_at": "2026-11-23T07:20:12"}}',
        b'{"identity": {"id": "%s", "updated_at": "9999-12-31T23:59:59-01:00"}}',
        b'{"identity": {"id": "%s", "organization_id": "none"}}',
        b'{"identity": {"id": "%s", "state": 7}}',
        b'{"identity": {"id": "%s", "recovery_addresses": [{"via": "email"}]}}',
        b'{"identity": {"id": "%s", "verifiable_addresses": [{"via": "email", "value": 7}]}}',
        b'{"identity": {"id": "%s", "traits": {"name": "NUL \\u0000"}}}',
        b'{"identity": {"id": "%s", "traits": {"name": "\\ud83d"}}}',
        b'{"identity": {"id": "%s", "traits": {"n": 1e400}}}',
        b'{"identity": {"id": "%s", "traits": NaN}}',
        b'{"identity": {"id": "%s", "traits": "\xff"}}',
        b'{"identity": {"id": "%s", "traits": ' + b"[" * 200 + b"]" * 200 + b"}}",
    ],
)
def test_whatever_needs_a_closer_look_is_not_usual(body: bytes) -> None:
    assert usual_id(body.replace(b"%s", ADA.encode())) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
odd_values = json_values | st.sampled_from(
    [
        ADA,
        ADA.upper(),
        ADA.replace("-", ""),
        "0001-01-01T00:00:00Z",
        "2026-11-23T07:20:12.273115999Z",
        "2026-11-23t07:20:12z",
        "2026-11-23T07:20:60Z",
        "20261123T072012Z",
        "9999-12-31T23:59:59-01:00",
        "",
    ]
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A recorded identity, with some fields anywhere in it changed, added or left out."""
    identity = json.loads(json.dumps(LIKE_HERS))
    for _ in range(draw(st.integers(0, 3))):
        within = draw(
            st.sampled_from(
                [
                    identity,
                    *identity.get("verifiable_addresses", ()),
                    *identity.get("recovery_addresses", ()),
                ]
            )
        )
        key = draw(st.sampled_from([*sorted(within), "metadata_admin", "credentials", "mood"]))
        if draw(st.booleans()):
            within.pop(key, None)
        else:
            within[key] = draw(odd_values)
        if not isinstance(identity.get("verifiable_addresses", []), list):
            break
        if not isinstance(identity.get("recovery_addresses", []), list):
            break
        for addresses in ("verifiable_addresses", "recovery_addresses"):
            if not all(isinstance(each, dict) for each in identity.get(addresses, [])):
                return json.dumps({"identity": identity}).encode()
    return json.dumps({"identity": identity}, ensure_ascii=draw(st.booleans())).encode(
        errors="replace"
    )


@settings(deadline=None)
@given(bodies() | st.binary(max_size=60))
@example(json.dumps({"identity": LIKE_HERS}).encode())
def test_a_body_is_read_as_by_the_json_module(body: bytes) -> None:
    found, by_json = read(body), read_by_json(body)

    assert (found and found[0]) == (by_json and by_json.id)
    usual = usual_id(body)
    assert usual is None or found == (usual, None)


@settings(deadline=None)
@given(bodies())
def test_a_body_is_recorded_as_it_came_only_where_it_says_nothing_else(body: bytes) -> None:
    found = read(body)
    if found is None or found[1] is not None:
        return
    (document,) = json.loads(body).values()
    assert not {"credentials", "metadata_admin"} & {*document}
    assert Identity.from_kratos(document).id == found[0]
