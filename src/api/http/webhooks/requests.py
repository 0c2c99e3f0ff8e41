"""Reading a webhook's request: its key, its headers, and its body within bounds."""

import asyncio
import hmac
import re
from collections.abc import Coroutine, Generator, Iterable, Mapping
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from types import coroutine
from typing import Final, TypeAlias

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class ApiKeys:
    """The active keys, held as digests only; while keys are being changed there are two."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Take the keys; raises ValueError when there is none, or an empty one."""
        self._digests = tuple(_digest(key) if key else b"" for key in keys)
        if not self._digests or not all(self._digests):
            raise ValueError("a webhook needs at least one API key, and none of them empty")

    def accept(self, offered: bytes) -> bool:
        """Whether this is one of the keys, in a time that tells neither which nor how nearly.

        Digests are of one length whatever was offered, and every one is compared.
        """
        digest = sha256(offered).digest()
        accepted = False
        for each in self._digests:
            accepted |= hmac.compare_digest(each, digest)
        return accepted

    def __repr__(self) -> str:
        return f"<{len(self._digests)} API keys>"


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


RawHeaders: TypeAlias = Mapping[bytes, bytes]

_JSON_MEDIA_TYPE: Final = re.compile(r"application/json|[\w.!#$&^-]+/[\w.!#$&^+-]+\+json", re.ASCII)
_LABEL: Final = re.compile(rb"[\x20-\x7e]{1,100}")
_UUID: Final = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NO_UUID: Final = b"00000000-0000-0000-0000-000000000000"
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


def first_headers(request: Request) -> RawHeaders:
    """The headers of a request as they came; of repeated ones the first."""
    return dict(reversed(request.scope["headers"]))


def trigger_id(headers: RawHeaders) -> str | None:
    """The id that all attempts of a call share; None if missing (before Kratos 25.4) or no UUID."""
    value = headers.get(b"ory-webhook-trigger-id")
    if value is None:
        return None
    if _UUID.fullmatch(value) and value != _NO_UUID:
        return value.decode().lower()
    _log.warning("webhook_trigger_id_ignored")
    return None


def traceparent(headers: RawHeaders) -> str | None:
    """The W3C Trace Context; None if missing or malformed."""
    value = headers.get(b"traceparent")
    return value.decode() if value is not None and _TRACEPARENT.fullmatch(value) else None


def hook_label(headers: RawHeaders) -> str | None:
    """The hook's name by its static header `X-Kratos-Hook`; None if missing or unfit for a log."""
    value = headers.get(b"x-kratos-hook")
    return value.decode() if value is not None and _LABEL.fullmatch(value) else None


@lru_cache(maxsize=64)
def is_json(content_type: bytes) -> bool:
    """Whether this is `application/json` or a `+json` type, with any parameters.

    A missing type is not: Kratos always sends one, and a hook may be set up to send forms.
    """
    media_type = content_type.decode("latin-1").partition(";")[0].strip().lower()
    return _JSON_MEDIA_TYPE.fullmatch(media_type) is not None


class BodyTooLarge(Exception):
    """The body is larger than allowed; the rest of it was not read."""


class BodyTooSlow(Exception):
    """The body did not arrive in time."""


class NoRoomForBody(Exception):
    """Bodies that arrived in part hold all the bytes that they may."""


class BodyBudget:
    """The bytes that all bodies together may hold while they arrive in parts."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def take(self, size: int) -> None:
        """Reserve so many bytes; raises NoRoomForBody."""
        if size > self._left:
            raise NoRoomForBody
        self._left -= size

    def release(self, size: int) -> None:
        """Free so many bytes."""
        self._left += size


async def read_body(
    request: Request, headers: RawHeaders, max_bytes: int, timeout: timedelta, budget: BodyBudget
) -> bytes:
    """Read the whole body, however it is sent.

    Raises BodyTooLarge as soon as its length is declared or seen to be more than `max_bytes`,
    NoRoomForBody, BodyTooSlow, or Starlette's ClientDisconnect. The request's own stream is then
    at its end.
    """
    if _declares_more_than(max_bytes, headers.get(b"content-length", b"")):
        raise BodyTooLarge
    body = _whole_body(request.receive, max_bytes, budget)
    request._stream_consumed = True  # noqa: SLF001 - else it would wait for more, for ever
    try:
        # What has arrived already, as a rule all of it, is read without a timer.
        waits_for = body.send(None)
    except StopIteration as read:
        whole: bytes = read.value
        return whole
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            return await _resumed(body, waits_for)
    except TimeoutError:
        raise BodyTooSlow from None


async def _whole_body(receive: Receive, max_bytes: int, budget: BodyBudget) -> bytes:
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
            budget.take(len(chunk))
            body += chunk
            if not message.get("more_body", False):
                return bytes(body)
    finally:
        budget.release(len(body))


@coroutine
def _resumed(
    begun: Coroutine[object, None, bytes], waits_for: object
) -> Generator[object, None, bytes]:
    """Go on with a coroutine that was started by hand and now waits for something."""
    try:
        yield waits_for
        body: bytes = yield from begun
        return body
    finally:
        begun.close()


def _declares_more_than(max_bytes: int, content_length: bytes) -> bool:
    digits = content_length.strip().lstrip(b"0")
    if not digits.isdigit():
        return False  # what cannot be read as a length is left to the count of what arrives
    return len(digits) > len(str(max_bytes)) or int(digits) > max_bytes
