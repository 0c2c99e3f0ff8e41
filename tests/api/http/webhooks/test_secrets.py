"""Keys and people stay out of logs and answers, whatever goes wrong."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from kratos_sync.application.ports.event_bus import Provenance, Publishable, UnreadEvent
from tests.api.http.client import ADA, KEY, SYNC, Api, message, recorded_webhooks, sync_handler
from tests.fakes.event_bus import RecordingEventBus

SECRETS = (KEY, "ada.lovelace", "Ada.Lovelace", "Lovelace", "a-wrong-key")


class LeakyBus(RecordingEventBus):
    """A bus whose errors quote what they were given, as drivers do."""

    async def publish(self, event: Publishable, provenance: Provenance) -> bool:
        payload = event.read().to_json() if isinstance(event, UnreadEvent) else event.to_json()
        try:
            json.loads(f"{payload}")
        except ValueError as error:
            raise RuntimeError(f"could not store {payload} with {KEY}") from error
        return True


@contextmanager
def nothing_leaks(capsys: pytest.CaptureFixture[str]) -> Iterator[list[Any]]:
    with capture_logs() as logs:
        yield logs
    said = json.dumps(logs, default=str) + "".join(capsys.readouterr())
    assert not [secret for secret in SECRETS if secret in said]


def test_an_unexpected_error_is_500_and_is_logged_by_type_and_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    api = Api(sync=sync_handler(LeakyBus()))
    with nothing_leaks(capsys) as logs:
        answer = api.post(SYNC, recorded_webhooks()[0].content)
    assert answer.status_code == 500
    assert message(answer) == (None, 500, "something went wrong")
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("webhook_failed", "error")
    assert line["error"] == "builtins.RuntimeError"
    assert line["causes"] == ["json.decoder.JSONDecodeError"]
    assert line["places"][-1].endswith(" publish")


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b'{"identity": {"traits": {"email": "ada.lovelace@example.org"}}', {}, 400),
        (b'{"identity": "Ada.Lovelace"}', {}, 422),
        (b'{"identity": {"id": "ada.lovelace"}}', {}, 422),
        (b'{"identity": {"id": "%s", "updated_at": "Lovelace"}}' % str(ADA).encode(), {}, 422),
        (b'{"identity": null, "Lovelace\\u0000": 1}', {}, 422),
        (b"{}", {"X-Api-Key": "a-wrong-key"}, 403),
        (b"{}", {"Content-Type": "text/Lovelace"}, 415),
        (b"[" * 100_000 + b'"Lovelace"', {}, 400),
        (b'{"Lovelace": 1e999}', {}, 400),
        (b'"Lovelace\xff"', {}, 400),
    ],
)
def test_no_refusal_quotes_what_was_sent(
    body: bytes, headers: dict[str, str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with nothing_leaks(capsys) as logs:
        answer = Api().post(SYNC, body, headers)
    assert answer.status_code == status
    assert not [secret for secret in SECRETS if secret in answer.text]
    assert logs[-1]["event"] == "webhook_rejected"


def test_an_accepted_call_logs_no_secret_in_any_header(capsys: pytest.CaptureFixture[str]) -> None:
    headers = {
        "Ory-Webhook-Trigger-ID": "Lovelace",
        "traceparent": "Lovelace",
        "Cookie": "Lovelace",
    }
    with nothing_leaks(capsys) as logs:
        assert Api().post(SYNC, recorded_webhooks()[0].content, headers).status_code == 200
    assert logs[-1]["event"] == "webhook_accepted"
