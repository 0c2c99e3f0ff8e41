"""Calls with an empty body: Kratos' template worker had died before it said anything."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from kratos_sync.api.http.webhooks.handler import KratosWebHookHandlerConfig
from kratos_sync.api.http.webhooks.parse_identity import (
    IdentityChanges,
    KratosIdentityParseHandler,
    ParsedIdentity,
)
from kratos_sync.api.http.webhooks.rejections import DetailedMessage
from kratos_sync.api.http.webhooks.sync_identity import KratosIdentityHintHandler
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.events import NO_IDENTITY, KratosTemplateFailed
from kratos_sync.testing.parse import ask
from tests.api.http.client import KEY, PARSE, SYNC, TEATIME, Api, Body, config, message
from tests.fakes.event_bus import RecordingEventBus

LABEL = "login.after.password"
HOOK = {"X-Kratos-Hook": LABEL}
TRIGGER = "a43a93e5-f9bb-49e5-9ae6-bd25018838b5"


async def no_chunks() -> AsyncIterator[bytes]:
    for chunk in ():
        yield chunk


async def empty_chunks() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b""


def refetching() -> Api:
    bus = RecordingEventBus()
    handler = KratosIdentityHintHandler(
        KratosWebHookHandlerConfig((KEY,)), bus, uuid4, lambda: TEATIME
    )
    return Api(bus, sync=handler)


@pytest.mark.parametrize("api", [Api, refetching], ids=["sync", "refetch"])
@pytest.mark.parametrize("body", [lambda: b"", no_chunks, empty_chunks])
def test_an_empty_body_is_an_event_of_its_own(api: Any, body: Any) -> None:
    called = api()
    with capture_logs() as logs:
        answer = called.post(SYNC, body(), HOOK)
    assert (answer.status_code, answer.json()) == (200, {})
    ((event, provenance),) = called.bus.published
    assert isinstance(event, KratosTemplateFailed)
    assert (event.subject, event.date_occurred, event.hook) == (NO_IDENTITY, TEATIME, LABEL)
    assert event.to_json() == {"hook": LABEL}
    assert provenance == Provenance("webhook", hook=LABEL)
    assert logs[0] == {"event": "webhook_template_failed", "log_level": "warning", "hook": LABEL}


def test_a_hook_without_a_label_has_the_empty_one() -> None:
    api = Api()
    for headers in ({}, {"X-Kratos-Hook": "x" * 101}):
        assert api.post(SYNC, b"", headers).status_code == 200
    assert [event.to_json() for event in api.bus.events] == [{"hook": ""}] * 2


def test_attempts_of_one_call_are_recorded_once_and_other_calls_are_others() -> None:
    api = Api()
    for trigger in (TRIGGER, TRIGGER, str(uuid4())):
        assert api.post(SYNC, b"", {"Ory-Webhook-Trigger-ID": trigger}).status_code == 200
    assert len(api.bus.events) == 2


def test_an_empty_body_without_the_key_records_nothing() -> None:
    api = Api()
    assert api.post(SYNC, b"", {"X-Api-Key": None}).status_code == 403
    assert api.bus.events == []


class Asked(KratosIdentityParseHandler):
    """Answers whatever a test wants."""

    failure_message = DetailedMessage(17, "Versuchen Sie es bitte gleich noch einmal.")
    answer: IdentityChanges | None = None

    def parse(self, identity: ParsedIdentity) -> IdentityChanges | None:
        assert identity.traits == {}
        return self.answer


@pytest.mark.parametrize("body", [lambda: b"", no_chunks])
def test_an_empty_body_of_a_parse_hook_is_a_failure(body: Any) -> None:
    with capture_logs() as logs:
        answer = Api(parse=Asked(config())).post(PARSE, body(), HOOK)
    assert answer.status_code == 422
    assert message(answer) == (None, 17, "Versuchen Sie es bitte gleich noch einmal.")
    (line,) = logs
    assert (line["event"], line["hook"]) == ("parse_failed_closed", LABEL)
    assert line["reason"] == "Kratos' template failed: the body is empty"


def test_an_empty_body_lets_in_where_failures_let_in() -> None:
    body: Body = b""
    with capture_logs() as logs:
        answer = Api(parse=Asked(config(), on_failure="let_in")).post(PARSE, body)
    assert (answer.status_code, answer.json()) == (200, {})
    assert [line["event"] for line in logs] == ["parse_failed_open"]


def test_a_registration_as_inactive_is_a_failure() -> None:
    handler = Asked(config())
    handler.answer = {"state": "inactive"}
    registration = b'{"identity": {"id": "00000000-0000-0000-0000-000000000000", "traits": {}}}'
    with capture_logs() as logs:
        answer = Api(parse=handler).post(PARSE, registration)
    assert answer.status_code == 422
    assert logs[0]["reason"].startswith("state is inactive at a registration")
    settings = ask(handler, {}, registration=False)
    assert getattr(settings, "changed", None) == {"state"}
