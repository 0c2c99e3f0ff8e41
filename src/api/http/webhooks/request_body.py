"""Reading a request's body within bounds of size and time."""

import asyncio
import re
from collections.abc import Coroutine, Generator
from datetime import timedelta
from functools import lru_cache
from types import coroutine
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from kratos_sync.api.http.webhooks.rejections import RawHeaders

_JSON_MEDIA_TYPE: Final = re.compile(r"application/json|[\w.!#$&^-]+/[\w.!#$&^+-]+\+json", re.ASCII)


class BodyTooLarge(Exception):
    """The body is larger than allowed; the rest of it was not read."""


class BodyTooSlow(Exception):
    """The body did not arrive in time."""


class NoRoomForBody(Exception):
    """Other bodies, which have come in part, take all the room that there is."""


class BodyRoom:
    """So many bytes for all bodies together that come in parts."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def take(self, size: int) -> None:
        """Keep so many bytes; raises NoRoomForBody."""
        if size > self._left:
            raise NoRoomForBody
        self._left -= size

    def release(self, size: int) -> None:
        """Let go of so many bytes."""
        self._left += size


@lru_cache(maxsize=64)
def is_json(content_type: bytes) -> bool:
    """Whether this is `application/json` or a `+json` type, with any parameters.

    None is not: Kratos always sends one, and a hook may be set up to send forms.
    """
    media_type = content_type.decode("latin-1").partition(";")[0].strip().lower()
    return _JSON_MEDIA_TYPE.fullmatch(media_type) is not None


async def read_body(
    request: Request, headers: RawHeaders, max_bytes: int, timeout: timedelta, room: BodyRoom
) -> bytes:
    """The whole body, however it is sent.

    Raises BodyTooLarge as soon as its length is declared or seen to be more than `max_bytes`,
    NoRoomForBody, BodyTooSlow, or Starlette's ClientDisconnect. The request's own stream is then
    at its end.
    """
    if _declares_more_than(max_bytes, headers.get(b"content-length", b"")):
        raise BodyTooLarge
    body = _whole_body(request.receive, max_bytes, room)
    request._stream_consumed = True  # noqa: SLF001 - else it would wait for more, for ever
    try:
        # What has come already, as a rule all of it, is read without a timer.
        waits_for = body.send(None)
    except StopIteration as read:
        whole: bytes = read.value
        return whole
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            return await _resumed(body, waits_for)
    except TimeoutError:
        raise BodyTooSlow from None


async def _whole_body(receive: Receive, max_bytes: int, room: BodyRoom) -> bytes:
    body = bytearray()
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > max_bytes:
                raise BodyTooLarge
            if not body and not message.get("more_body", False):
                return bytes(chunk)
            room.take(len(chunk))
            body += chunk
            if not message.get("more_body", False):
                return bytes(body)
    finally:
        room.release(len(body))


@coroutine
def _resumed(
    begun: Coroutine[object, None, bytes], waits_for: object
) -> Generator[object, None, bytes]:
    """Go on with a coroutine that was begun by hand and has come to wait for something."""
    try:
        yield waits_for
        body: bytes = yield from begun
        return body
    finally:
        begun.close()


def _declares_more_than(max_bytes: int, content_length: bytes) -> bool:
    digits = content_length.strip().lstrip(b"0")
    if not digits.isdigit():
        return False  # what cannot be read as a length is left to the count of what comes
    return len(digits) > len(str(max_bytes)) or int(digits) > max_bytes
