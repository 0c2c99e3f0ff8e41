"""Who may call."""

import hmac
from collections.abc import Callable
from uuid import uuid4

import pytest

from kratos_sync.api.http.webhooks.handler import KratosWebHookHandlerConfig
from kratos_sync.api.http.webhooks.requests import ApiKeys
from kratos_sync.api.http.webhooks.sync_identity import KratosIdentitySyncHandler
from tests.api.http.client import (
    KEY,
    SYNC,
    TEATIME,
    Api,
    config,
    message,
    recorded_webhooks,
    sync_handler,
)
from tests.fakes.event_bus import RecordingEventBus

CONTENT = recorded_webhooks()[0].content


@pytest.mark.parametrize("key", [None, "", "wrong", KEY[:-1], KEY + "x", KEY.upper(), "x" * 10_000])
def test_a_call_without_the_key_is_rejected(key: str | None) -> None:
    api = Api()
    answer = api.post(SYNC, CONTENT, {"X-Api-Key": key})
    assert answer.status_code == 403
    assert message(answer) == (None, 403, "the API key is missing or wrong")
    assert api.bus.published == []


@pytest.mark.parametrize("key", [b"\xff\xfe", "clé".encode(), "🗝".encode(), b"\x80" * 100])
def test_a_key_of_odd_bytes_is_just_wrong(key: bytes) -> None:
    answer = Api().request(
        "POST", SYNC, content=CONTENT, headers=[(b"x-api-key", key), (b"content-type", b"a/b")]
    )
    assert answer.status_code == 403


def test_a_key_need_not_be_ascii() -> None:
    assert ApiKeys(["clé"]).accept("clé".encode())


def test_while_keys_are_changed_both_open_and_afterwards_only_the_new_one() -> None:
    during, after = Api(config=config("old", "new")), Api(config=config("new"))
    assert [
        during.post(SYNC, CONTENT, {"X-Api-Key": key}).status_code for key in ("old", "new")
    ] == [200, 200]
    assert [
        after.post(SYNC, CONTENT, {"X-Api-Key": key}).status_code for key in ("old", "new")
    ] == [403, 200]


def test_the_configuration_may_name_another_header() -> None:
    api = Api(config=config(header="X-Kratos-Secret"))
    assert api.post(SYNC, CONTENT).status_code == 403
    assert api.post(SYNC, CONTENT, {"x-kratos-secret": KEY}).status_code == 200


def test_a_subclass_may_name_another_header() -> None:
    class Differently(KratosIdentitySyncHandler):
        api_key_header_name = "Authorization"

    sync = Differently(config(), RecordingEventBus(), uuid4, lambda: TEATIME)
    api = Api(sync=sync)
    assert api.post(SYNC, CONTENT).status_code == 403
    assert api.post(SYNC, CONTENT, {"Authorization": KEY}).status_code == 200


@pytest.mark.parametrize(
    "offered", [b"one", b"three", b"on", b"onee", b"none of them", b"", b"\xff", b"x" * 100_000]
)
def test_every_key_is_compared_in_constant_time_and_at_one_length(
    offered: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real: Callable[[bytes, bytes], bool] = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    keys = ApiKeys(["one", "two", "three"])
    monkeypatch.setattr(hmac, "compare_digest", counting)
    assert keys.accept(offered) is (offered in {b"one", b"three"})
    assert len(compared) == 3
    assert {len(side) for pair in compared for side in pair} == {32}


@pytest.mark.parametrize("keys", [(), ("",), ("good", "")])
def test_a_handler_without_a_key_or_with_an_empty_one_is_not_made(keys: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="at least one API key"):
        sync_handler(RecordingEventBus(), KratosWebHookHandlerConfig(keys))


def test_keys_show_in_no_representation() -> None:
    assert KEY not in repr(config())
    assert repr(ApiKeys([KEY])) == "<1 API keys>"
