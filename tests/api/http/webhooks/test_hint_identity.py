"""`POST /kratos/sync-identity` where Kratos is asked again."""

import json
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from kratos_sync.api.http.webhooks.handler import KratosWebHookHandlerConfig
from kratos_sync.api.http.webhooks.sync_identity import KratosIdentityHintHandler
from kratos_sync.domain.events import KratosIdentityHinted
from tests.api.http.client import (
    ADA,
    KEY,
    SYNC,
    TEATIME,
    Api,
    Recorded,
    message,
    provenance_of,
    recorded_webhooks,
)
from tests.fakes.event_bus import RecordingEventBus

REGISTRATION = recorded_webhooks()[0]
CONFIG = KratosWebHookHandlerConfig((KEY,))


def api() -> Api:
    bus = RecordingEventBus()
    return Api(bus, sync=KratosIdentityHintHandler(CONFIG, bus, uuid4, lambda: TEATIME))


@pytest.mark.parametrize("call", recorded_webhooks(), ids=lambda call: call.name)
def test_a_call_is_a_hint_and_nothing_of_the_person_is_recorded(call: Recorded) -> None:
    called = api()
    answer = called.post(SYNC, call.content, call.headers)
    assert (answer.status_code, answer.json()) == (200, {})
    ((event, provenance),) = called.bus.published
    assert isinstance(event, KratosIdentityHinted)
    assert event.to_json() == {"identity_id": call.body["identity"]["id"]}
    assert event.date_occurred == TEATIME
    assert provenance == provenance_of(call)


def test_a_body_that_is_not_ordinary_is_a_hint_too() -> None:
    called = api()
    body = {"identity": {"id": str(ADA), "a_field_of_next_year": 1}, "flow": "login"}
    assert called.say(body).status_code == 200
    assert [event.subject for event in called.bus.events] == [ADA]


def test_a_second_attempt_of_kratos_is_recorded_once() -> None:
    called = api()
    with capture_logs() as logs:
        for _ in range(2):
            called.post(SYNC, REGISTRATION.content, REGISTRATION.headers)
    assert len(called.bus.events) == 1
    assert [line["duplicate"] for line in logs] == [False, True]


@pytest.mark.parametrize(
    ("body", "number"),
    [
        ({}, 1),
        ({"identity": {"id": str(uuid4()).replace("-", "x")}}, 3),
        ({"identity": {"id": "00000000-0000-0000-0000-000000000000"}}, 2),
        ({"identity": {"id": str(ADA), "updated_at": "today"}}, 3),
    ],
)
def test_a_body_is_read_as_strictly_as_ever(body: object, number: int) -> None:
    called = api()
    answer = called.say(body)
    assert answer.status_code == 422
    assert message(answer)[1] == number
    assert called.bus.attempts == 0


def test_a_call_without_the_key_is_no_hint() -> None:
    called = api()
    answer = called.post(SYNC, json.dumps({}).encode(), {"X-Api-Key": None})
    assert answer.status_code in {401, 403}
    assert called.bus.attempts == 0
