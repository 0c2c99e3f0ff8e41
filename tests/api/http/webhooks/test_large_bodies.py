"""Large bodies: whatever is in them, the event loop goes on."""

import asyncio
import time
from datetime import timedelta
from uuid import uuid4

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive

from kratos_sync.api.http.webhooks.handler import KratosWebHookHandler
from kratos_sync.api.http.webhooks.identity_body import usual_id
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler
from kratos_sync.application.json_body import decode
from kratos_sync.application.ports.event_bus import Provenance, Publishable
from tests.api.http.client import ADA, KEY, config, sync_handler

SIZE = 1_048_576
MOST_SECONDS = 0.1
"""Of the event loop's own work; half of that on a machine with nothing else to do."""


class SilentBus:
    """An `EventBus` that costs nothing."""

    async def publish(self, event: Publishable, provenance: Provenance) -> bool:
        return True


def body_of(traits: str, more: str = "") -> bytes:
    body = f'{{"identity":{{"id":"{ADA}","traits":{traits}{more}}}}}'.encode()
    assert SIZE - 5_000 < len(body) <= SIZE
    return body


def many(item: str, first: str = "") -> str:
    return f"[{first}{','.join([item] * ((SIZE - 200) // (len(item) + 1)))}]"


def long_text(escape: str) -> str:
    return f'"{escape * ((SIZE - 200) // len(escape))}"'


TRAITS = {
    "the largest doubles": many("1e308"),
    "the smallest doubles": many("5e-324"),
    "doubles of many digits": many("2.2250738585072011e-308"),
    "lists": many("[]"),
    "objects": many("{}"),
    "lists as deep as may be": many("[" * 90 + "]" * 90),
    "keys that are there twice": many('{"a":1,"a":2}'),
    "integers of many digits": many("9" * 4_300),
    "integers": many("1"),
    "escapes": long_text("\\u4e2d"),
    "escapes of backslashes and quotes": long_text('\\\\\\"'),
    "characters that are replaced": long_text("\\u0000"),
    "integers beside a character that is replaced": many("1", '"\\u0000",'),
    "doubles beside a character that is replaced": many("1e308", '"\\u0000",'),
    "lone surrogates": long_text("\\ud800"),
}
MORE = {"ordinary": "", "with credentials": ',"credentials":{}'}
HANDLERS = [
    sync_handler(SilentBus(), config()),
    KratosIdentityParseHandler(config(), budget=timedelta(seconds=15)),
]


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
@pytest.mark.parametrize("traits", TRAITS.values(), ids=TRAITS)
def test_a_large_body_is_not_read_on_the_event_loop(traits: str, more: str) -> None:
    body = body_of(traits, more)
    for handler in HANDLERS if not more else HANDLERS[:1]:
        status, seconds = asyncio.run(answer(handler, body))
        print(f"{seconds * 1e3:.1f} ms")
        assert status == 200
        assert seconds < MOST_SECONDS


async def answer(handler: KratosWebHookHandler, body: bytes) -> tuple[int, float]:
    """The status, and the seconds of work that this thread, the event loop's, had with it."""
    headers = [(b"x-api-key", KEY.encode()), (b"content-type", b"application/json")]
    request = Request({"type": "http", "method": "POST", "headers": headers}, whole(body))
    began = time.thread_time()
    response = await handler.handle(request)
    return response.status_code, time.thread_time() - began


def whole(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


@pytest.mark.parametrize("number", ["1e308", "-1e-308", "5e-324", "1.7976931348623157e308"])
def test_no_number_costs_a_multiple_of_others(number: str) -> None:
    count = 20_000
    usual = cpu_seconds(f"[{','.join(['0.12'] * count)}]")
    odd = cpu_seconds(f"[{','.join([number] * count)}]")
    print(f"{usual * 1e3:.1f} ms, {odd * 1e3:.1f} ms")
    assert odd < 6 * usual


def cpu_seconds(traits: str) -> float:
    body = f'{{"identity":{{"id":"{uuid4()}","traits":{traits}}}}}'.encode()

    def seconds() -> float:
        began = time.thread_time()
        assert usual_id(body) is not None
        assert decode(body).value
        return time.thread_time() - began

    return min(seconds() for _ in range(5))


def test_large_bodies_that_wait_to_be_read_are_bounded_together() -> None:
    handler = sync_handler(SilentBus(), config(room=3 * SIZE))

    async def all_at_once() -> list[int]:
        body = body_of(many("1"))
        answers = await asyncio.gather(*(answer(handler, body) for _ in range(8)))
        return [status for status, _ in answers]

    assert sorted(asyncio.run(all_at_once())) == [200] * 3 + [503] * 5
    assert asyncio.run(all_at_once()).count(200) == 3
