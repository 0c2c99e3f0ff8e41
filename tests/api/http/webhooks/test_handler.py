"""What every webhook goes through before it is read."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive
from structlog.testing import capture_logs

from tests.api.http.client import KEY, SYNC, Api, config, message, recorded_webhooks, sync_handler
from tests.fakes.event_bus import RecordingEventBus
from tests.waiting import until_on_loop

CONTENT = recorded_webhooks()[0].content
LIMIT = 1_048_576


class Chunks:
    """A body that comes in pieces, and counts those that were asked for."""

    def __init__(self, count: int, size: int = 65_536) -> None:
        self.count, self.size, self.taken = count, size, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.count):
            self.taken += 1
            yield b" " * self.size


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=UTF-8",
        "application/vnd.api+json",
        "application/cloudevents+json; charset=utf-8",
    ],
)
def test_json_is_accepted_under_each_of_its_types(content_type: str) -> None:
    assert Api().post(SYNC, CONTENT, {"Content-Type": content_type}).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "+json",
        ";",
    ],
)
def test_anything_that_is_not_json_is_415(content_type: str | None) -> None:
    answer = Api().post(SYNC, CONTENT, {"Content-Type": content_type})
    assert answer.status_code == 415
    assert message(answer) == (None, 415, "the body is not application/json")


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "identity, gzip"])
def test_a_compressed_body_is_415(encoding: str) -> None:
    answer = Api().post(SYNC, CONTENT, {"Content-Encoding": encoding})
    assert message(answer) == (None, 415, "the body is compressed")


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_the_content_encoding_identity_is_accepted(encoding: str) -> None:
    assert Api().post(SYNC, CONTENT, {"Content-Encoding": encoding}).status_code == 200


@pytest.mark.parametrize("length", [LIMIT + 1, 10**30])
def test_a_body_that_is_declared_too_large_is_not_read_at_all(length: int) -> None:
    body = Chunks(100)
    answer = Api().post(SYNC, aiter(body), {"Content-Length": str(length)})
    assert answer.status_code == 413
    assert message(answer) == (None, 413, "the body is too large")
    assert answer.headers["connection"] == "close"
    assert body.taken == 0


def test_a_chunked_body_is_read_no_further_than_the_limit() -> None:
    body = Chunks(100)
    answer = Api().post(SYNC, aiter(body))
    assert answer.status_code == 413
    assert body.taken == 17


@pytest.mark.parametrize("declared", ["0", "١٢", "-5", "many", "00010"])
def test_a_body_is_counted_whatever_length_it_declares(declared: str) -> None:
    headers = [(b"x-api-key", KEY.encode()), (b"content-type", b"application/json")]
    headers.append((b"content-length", declared.encode()))
    answer = Api().request("POST", SYNC, content=aiter(Chunks(17)), headers=headers)
    assert answer.status_code == 413


def test_a_body_of_exactly_the_limit_is_read() -> None:
    padded = CONTENT + b" " * (LIMIT - len(CONTENT))
    assert Api().post(SYNC, padded).status_code == 200
    assert Api().post(SYNC, padded + b" ").status_code == 413


def test_a_body_that_does_not_come_is_408() -> None:
    async def never_ending() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    api = Api(config=config(timeout=timedelta(milliseconds=5)))
    answer = api.post(SYNC, never_ending())
    assert answer.status_code == 408
    assert message(answer) == (None, 408, "the body came too slowly")
    assert answer.headers["connection"] == "close"


def test_bodies_that_arrive_in_parts_share_a_budget_and_free_it() -> None:
    async def scenario() -> list[int]:
        handler = sync_handler(RecordingEventBus(), config(room=2 * len(CONTENT)))
        rest_comes = asyncio.Event()
        stalled = 0

        async def body() -> AsyncIterator[Message]:
            nonlocal stalled
            stalled += 1
            yield {"type": "http.request", "body": CONTENT[:-1], "more_body": True}
            await rest_comes.wait()
            yield {"type": "http.request", "body": CONTENT[-1:], "more_body": False}

        def call() -> asyncio.Task[Response]:
            return asyncio.create_task(handler.handle(request_of(aiter(body()).__anext__)))

        early = [call(), call()]
        await until_on_loop(lambda: stalled == 2)
        refused = await call()
        assert refused.headers["retry-after"] == "20"
        assert refused.headers["connection"] == "close"
        rest_comes.set()
        later = [await each for each in early] + [await call()]
        return [refused.status_code, *(answer.status_code for answer in later)]

    assert asyncio.run(scenario()) == [503, 200, 200, 200]


def test_strangers_learn_nothing_but_that_they_have_no_key() -> None:
    wrong_in_every_way = {"X-Api-Key": "no", "Content-Type": "a/b", "Content-Length": "9999999"}
    assert Api().post(SYNC, aiter(Chunks(1)), wrong_in_every_way).status_code == 403


def test_a_caller_that_goes_away_is_no_error() -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"iden', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    bus = RecordingEventBus()
    with capture_logs() as logs:
        asyncio.run(sync_handler(bus).handle(request_of(receive)))
    assert logs == [{"event": "webhook_disconnected", "log_level": "info"}]
    assert bus.attempts == 0


def request_of(receive: Receive) -> Request:
    """A request with the right key and type, whose body comes as it is received."""
    headers = [(b"x-api-key", KEY.encode()), (b"content-type", b"application/json")]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)
