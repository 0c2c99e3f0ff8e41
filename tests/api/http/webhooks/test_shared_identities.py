"""Webhooks where several deployments share the identities of one Kratos."""

import json
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from kratos_sync.api.http.webhooks.handler import KratosWebHookHandlerConfig
from kratos_sync.api.http.webhooks.sync_identity import (
    KratosIdentityHintHandler,
    KratosIdentitySyncHandler,
)
from kratos_sync.domain.id_range import IdRange
from tests.api.http.client import KEY, SYNC, TEATIME, Api
from tests.fakes.event_bus import RecordingEventBus

OURS, THEIRS = "3280695c-9cfc-4f35-bc67-150e11d35f6d", "e52e75c7-afbb-4316-a4ef-3977a428a2ca"
HOOK = {"X-Kratos-Hook": "login.after.code"}


def api(handler: type[KratosIdentitySyncHandler]) -> tuple[Api, list[str], list[str | None]]:
    """An api that holds half of the identities; the results and the labels that it notes."""
    bus, results, labels = RecordingEventBus(), list[str](), list[str | None]()
    config = KratosWebHookHandlerConfig(
        (KEY,), on_answered=lambda result, _: results.append(result)
    )
    sync = handler(
        config,
        bus,
        uuid4,
        lambda: TEATIME,
        on_accepted=labels.append,
        ids=IdRange.parse("0-7"),
    )
    return Api(bus, sync=sync), results, labels


@pytest.mark.parametrize("handler", [KratosIdentitySyncHandler, KratosIdentityHintHandler])
@pytest.mark.parametrize("more", [{}, {"a_field_of_next_year": 1}, {"traits": "x" * 20_000}])
def test_a_misrouted_call_is_not_recorded_and_is_sent_again(
    handler: type[KratosIdentitySyncHandler], more: dict[str, object]
) -> None:
    called, results, labels = api(handler)
    with capture_logs() as logs:
        misrouted = called.say({"identity": {"id": THEIRS, **more}}, HOOK)
        ours = called.say({"identity": {"id": OURS, **more}}, HOOK)

    assert (misrouted.status_code, ours.status_code) == (503, 200)
    ((message,),) = [each["messages"] for each in misrouted.json()["messages"]]
    assert message["text"] == "another deployment holds this identity: IDENTITY_IDS is 0-7 here"
    assert "Retry-After" not in misrouted.headers
    assert [str(event.subject) for event in called.bus.events] == [OURS]
    assert (results, labels) == (["misrouted", "accepted"], [HOOK["X-Kratos-Hook"]])
    assert logs[0] == {
        "event": "webhook_misrouted",
        "log_level": "warning",
        "identity_id": THEIRS,
        "hook": HOOK["X-Kratos-Hook"],
    }


def test_who_has_no_key_does_not_learn_what_is_held() -> None:
    called, _, _ = api(KratosIdentitySyncHandler)
    body = json.dumps({"identity": {"id": THEIRS}}).encode()

    assert called.post(SYNC, body, {"X-Api-Key": "another-key-of-no-worth"}).status_code == 403


def test_an_empty_body_is_recorded_wherever_it_arrives() -> None:
    called, results, _ = api(KratosIdentitySyncHandler)

    assert called.post(SYNC, b"", HOOK).status_code == 200
    assert [event.name for event in called.bus.events] == ["kratos_webhook.template_failed"]
    assert results == ["accepted"]
