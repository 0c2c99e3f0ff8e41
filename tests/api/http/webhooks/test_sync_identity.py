"""`POST /kratos/sync-identity`, as in the seed."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from structlog.testing import capture_logs

from kratos_sync.api.http.webhooks.sync_identity import KratosIdentitySyncHandler
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.identity import Identity
from tests.api.http.client import (
    ADA,
    KEY,
    SYNC,
    TEATIME,
    Api,
    Recorded,
    config,
    dedupe_key,
    message,
    provenance_of,
    recorded_parse_calls,
    recorded_webhooks,
    sync_handler,
)
from tests.fakes.event_bus import RecordingEventBus

REGISTRATION = recorded_webhooks()[0]
TRIGGER = "a43a93e5-f9bb-49e5-9ae6-bd25018838b5"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NIL = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("call", recorded_webhooks(), ids=lambda call: call.name)
def test_what_kratos_really_sends_is_recorded(call: Recorded) -> None:
    api = Api()
    answer = api.post(SYNC, call.content, call.headers)
    assert (answer.status_code, answer.json()) == (200, {})
    ((event, provenance),) = api.bus.published
    assert isinstance(event, KratosIdentityUpdated)
    assert event.identity == Identity.from_kratos(call.body["identity"])
    assert event.date_occurred == TEATIME
    assert event.to_json() == call.body
    assert provenance == provenance_of(call)


def test_a_trigger_id_used_again_with_another_body_is_another_call() -> None:
    api = Api()
    trigger = {"Ory-Webhook-Trigger-ID": TRIGGER}
    bodies = [{"identity": {"id": str(uuid4()), "state": state}} for state in ("active", "x")]
    bodies.append({"identity": {**bodies[0]["identity"], "state": "inactive"}})
    for body in [*bodies, *bodies]:
        assert api.say(body, trigger).status_code == 200
    assert [event.to_json() for event in api.bus.events] == bodies


@pytest.mark.parametrize("metadata", [b"null", b'{"plan":"gold"}'])
@pytest.mark.parametrize("key", [b'"metadata_admin"', rb'"metadata\u005fadmin"'])
def test_metadata_for_administrators_is_dropped(key: bytes, metadata: bytes) -> None:
    api = Api()
    body = REGISTRATION.content.replace(b'"schema_id"', key + b":" + metadata + b',"schema_id"', 1)

    assert api.post(SYNC, body, REGISTRATION.headers).status_code == 200

    (event,) = api.bus.events
    assert isinstance(event, KratosIdentityUpdated)
    assert not event.identity.is_exact
    assert event.to_json() == REGISTRATION.body


def test_the_whole_recording_is_thirteen_events_with_ids_of_their_own() -> None:
    api = Api()
    for call in recorded_webhooks():
        api.post(SYNC, call.content, call.headers)
    assert len({event.id for event in api.bus.events}) == 13


def test_a_second_attempt_of_kratos_is_answered_200_and_recorded_once() -> None:
    api = Api()
    with capture_logs() as logs:
        answers = [api.post(SYNC, REGISTRATION.content, REGISTRATION.headers) for _ in range(2)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {})] * 2
    assert len(api.bus.events) == 1
    assert [line["duplicate"] for line in logs] == [False, True]


def test_accepted_calls_are_logged_without_personal_data() -> None:
    api = Api()
    with capture_logs() as logs:
        api.post(SYNC, REGISTRATION.content, REGISTRATION.headers)
    assert logs == [
        {
            "event": "webhook_accepted",
            "log_level": "info",
            "event_id": str(api.bus.events[0].id),
            "identity_id": str(ADA),
            "hook": "registration.after.password",
            "duplicate": False,
        }
    ]


@pytest.mark.parametrize(
    "body", [{}, {"identity": None}, {"Identity": {}}, None, [], "identity", 1]
)
def test_no_identity_is_message_1(body: object) -> None:
    api = Api()
    answer = api.say(body)
    assert answer.status_code == 422
    assert answer.json() == {
        "messages": [
            {
                "instance_ptr": None,
                "messages": [
                    {"id": 1, "text": "identity is null", "type": "error", "context": None}
                ],
            }
        ]
    }
    assert api.bus.attempts == 0


@pytest.mark.parametrize("identity", [{}, {"id": None}, {"id": ""}, {"id": NIL}])
def test_an_empty_id_is_message_2(identity: dict[str, Any]) -> None:
    answer = Api().say({"identity": identity})
    assert answer.status_code == 422
    assert message(answer) == (None, 2, "identity.id is empty")


@pytest.mark.parametrize("call", recorded_parse_calls(), ids=lambda call: call.name)
def test_a_parse_hook_that_calls_here_is_rejected_for_its_missing_id(call: Recorded) -> None:
    assert message(Api().post(SYNC, call.content, call.headers))[1] == 2


@pytest.mark.parametrize(
    ("wrong", "place", "text"),
    [
        ({"id": "ada"}, "#/identity/id", "identity.id is not a UUID"),
        ({"updated_at": "today"}, "#/identity/updated_at", "identity.updated_at is not a time"),
        (
            {"verifiable_addresses": [{"value": "ada@example.org", "via": 1}]},
            "#/identity/verifiable_addresses/0/via",
            "identity.verifiable_addresses[0].via is not a string",
        ),
        (
            {"recovery_addresses": ["ada@example.org"]},
            "#/identity/recovery_addresses/0",
            "identity.recovery_addresses[0] is not an object",
        ),
    ],
)
def test_a_wrong_field_is_message_3_at_the_field(
    wrong: dict[str, Any], place: str, text: str
) -> None:
    answer = Api().say({"identity": {"id": str(ADA), **wrong}})
    assert answer.status_code == 422
    assert message(answer) == (place, 3, text)


@pytest.mark.parametrize("identity", [[], "ada", 7, True])
def test_an_identity_that_is_no_object_is_message_3(identity: object) -> None:
    answer = Api().say({"identity": identity})
    assert answer.status_code == 422
    assert message(answer) == ("#/identity", 3, "identity is not an object")


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        (TRIGGER, dedupe_key(REGISTRATION, TRIGGER)),
        (TRIGGER.upper(), dedupe_key(REGISTRATION, TRIGGER)),
        (None, None),
        ("", None),
        (NIL, None),
        ("yesterday", None),
        (f"{{{TRIGGER}}}", None),
        (TRIGGER.replace("-", ""), None),
    ],
)
def test_only_a_trigger_id_that_is_a_uuid_makes_a_dedupe_key(
    sent: str | None, key: str | None
) -> None:
    api = Api()
    with capture_logs() as logs:
        api.post(SYNC, REGISTRATION.content, {"Ory-Webhook-Trigger-ID": sent})
    assert api.bus.published[0][1].dedupe_key == key
    ignored = sent is not None and key is None
    assert ("webhook_trigger_id_ignored" in [line["event"] for line in logs]) is ignored


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (TRACEPARENT, True),
        (None, False),
        (TRACEPARENT.upper(), False),
        (TRACEPARENT.replace("00-4", "ff-4"), False),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
        (f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01", False),
        (TRACEPARENT + "-extra", False),
        ("x" * 5_000, False),
    ],
)
def test_a_trace_is_handed_on_when_it_is_well_formed(sent: str | None, kept: bool) -> None:
    api = Api()
    api.post(SYNC, REGISTRATION.content, {"traceparent": sent})
    assert api.bus.published[0][1].traceparent == (sent if kept else None)


@pytest.mark.parametrize("label", [b"", b"x" * 101, b"a\tb", "naïve".encode(), b"\xff"])
def test_a_hook_label_that_does_not_fit_a_log_is_dropped(label: bytes) -> None:
    headers = [(b"x-api-key", KEY.encode()), (b"content-type", b"application/json")]
    headers.append((b"x-kratos-hook", label))
    with capture_logs() as logs:
        Api().request("POST", SYNC, content=REGISTRATION.content, headers=headers)
    assert logs[0]["hook"] is None


def test_a_ledger_that_stays_away_is_503_without_retry_after() -> None:
    bus = RecordingEventBus()
    bus.be_unavailable()
    api = Api(sync=sync_handler(bus, max_wait=timedelta(milliseconds=5)))
    answer = api.post(SYNC, REGISTRATION.content)
    assert answer.status_code == 503
    assert message(answer) == (None, 503, "try again later")
    assert "retry-after" not in answer.headers


def test_a_call_rejected_for_lack_of_capacity_carries_retry_after() -> None:
    handler = KratosIdentitySyncHandler(
        config(), RecordingEventBus(), uuid4, lambda: TEATIME, max_calls=0
    )
    answer = Api(sync=handler).post(SYNC, REGISTRATION.content)
    assert answer.status_code == 503
    assert message(answer) == (None, 503, "try again later")
    assert answer.headers["retry-after"] == "20"


def test_after_an_outage_kratos_second_attempt_is_recorded() -> None:
    bus = RecordingEventBus()
    api = Api(sync=sync_handler(bus, max_wait=timedelta(milliseconds=5)))
    bus.be_unavailable()
    assert api.post(SYNC, REGISTRATION.content, REGISTRATION.headers).status_code == 503
    bus.be_unavailable(times=0)
    assert api.post(SYNC, REGISTRATION.content, REGISTRATION.headers).status_code == 200
    assert [event.subject for event in bus.events] == [ADA]


def test_unknown_fields_are_kept_and_credentials_are_not() -> None:
    api = Api()
    api.say({"identity": {"id": str(ADA), "region": "eu", "mood": "good", "credentials": {"x": 1}}})
    payload: Any = api.bus.events[0].to_json()
    assert payload == {"identity": {"id": str(ADA), "region": "eu", "mood": "good"}}
    assert UUID(payload["identity"]["id"]) == api.bus.events[0].subject
    assert KEY not in str(payload)


@pytest.mark.parametrize("call", recorded_webhooks(), ids=lambda call: call.name)
def test_what_kratos_really_sends_is_recorded_as_it_came(call: Recorded) -> None:
    api = Api()
    api.post(SYNC, call.content, call.headers)
    assert api.bus.payloads == [call.content]


@pytest.mark.parametrize(
    ("body", "is_kept"),
    [
        ('{"identity": {"id": "%s", "traits": {"name": "Zo\\u0113 \\ud83d\\ude00"}}}', True),
        (' {"identity":\n{"id": "%s", "n": 12345678901234567890123}} ', True),
        ('{"identity": {"id": "%s"}, "flow": {"id": "1"}}', False),
        ('{"identity": {"id": "%s", "credentials": {"password": "x"}}}', False),
        ('{"identity": {"id": "%s", "\\u0063redentials": {"password": "x"}}}', False),
        ('{"identity": {"credentials": {"password": "x"}}, "identity": {"id": "%s"}}', False),
        ('{"\\u0069dentity": {"x": "password"}, "identity": {"id": "%s"}}', False),
        ('{"identity": {"id": "%s", "traits": {"name": "Ad\\u0000a"}}}', False),
        ('{"identity": {"id": "%s", "traits": {"name": "\\ud83d"}}}', False),
    ],
)
def test_a_body_is_recorded_as_it_came_unless_it_holds_more_than_may_be_kept(
    body: str, is_kept: bool
) -> None:
    api = Api()
    content = (body % ADA).encode()
    assert api.post(SYNC, content).status_code == 200
    assert api.bus.payloads == [content if is_kept else None]
    assert "password" not in str(api.bus.events[0].to_json())


def test_calls_that_are_answered_together_share_a_line() -> None:
    api = Api()

    async def scenario() -> list[int]:
        transport = httpx.ASGITransport(api.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"X-Api-Key": KEY, **REGISTRATION.headers}
            posts = [
                client.post(SYNC, content=REGISTRATION.content, headers=headers) for _ in range(5)
            ]
            return [answer.status_code for answer in await asyncio.gather(*posts)]

    with capture_logs() as logs:
        assert asyncio.run(scenario()) == [200] * 5
    assert [line["event"] for line in logs] == ["webhook_accepted"]
    assert (logs[0]["calls"], logs[0]["duplicates"]) == (5, 4)
