"""Reading a webhook's request: its key, its headers, and its body within bounds."""

import asyncio
import hmac
import re
from collections.abc import Coroutine, Generator, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from http import HTTPStatus
from types import coroutine
from typing import Final, TypeAlias

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from kratos_sync.application.trace_context import WELL_FORMED
from kratos_sync.domain.fields import from_text

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class Rejected(Exception):
    """A call is answered with this status, text and headers, before its handler sees it."""

    def __init__(
        self, status: HTTPStatus, text: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


class ApiKeys:
    """The active keys, held as digests only; while keys are being changed there are two."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Take the keys; raises ValueError when there is none, or an empty one."""
        if not keys or not all(keys):
            raise ValueError("a webhook needs at least one API key, and none of them empty")
        self._digests = [sha256(key.encode("utf-8", "surrogateescape")).digest() for key in keys]

    def accept(self, offered: bytes) -> bool:
        """Whether this is one of the keys, in a time that shows neither which nor how nearly.

        Digests are of one length whatever was offered, and every one is compared.
        """
        digest = sha256(offered).digest()
        return any([hmac.compare_digest(each, digest) for each in self._digests])  # noqa: C419

    def __repr__(self) -> str:
        return f"<{len(self._digests)} API keys>"


RawHeaders: TypeAlias = Mapping[bytes, bytes]

_JSON_MEDIA_TYPE: Final = re.compile(r"application/json|[\w.!#$&^-]+/[\w.!#$&^+-]+\+json", re.ASCII)
_UNCOMPRESSED: Final = frozenset({b"identity", b""})
_LABEL: Final = re.compile(rb"[\x20-\x7e]{1,100}")
_TRACEPARENT: Final = re.compile(WELL_FORMED.pattern.encode())


def first_headers(request: Request) -> RawHeaders:
    """The headers of a request as they came; of repeated ones the first."""
    return dict(reversed(request.scope["headers"]))


def trigger_id(headers: RawHeaders) -> str | None:
    """The id that all attempts of a call share; None if missing (before Kratos 25.4) or no UUID."""
    value = headers.get(b"ory-webhook-trigger-id")
    if value is None:
        return None
    text = value.decode("latin-1")
    if (uuid := from_text(text)) is not None and uuid.int:
        return text.lower()
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


def check_type(headers: RawHeaders) -> None:
    """Raises Rejected unless the body is uncompressed JSON."""
    if not _is_json(headers.get(b"content-type", b"")):
        raise Rejected(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is not application/json")
    if headers.get(b"content-encoding", b"").strip().lower() not in _UNCOMPRESSED:
        raise Rejected(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is compressed")


@lru_cache(maxsize=64)
def _is_json(content_type: bytes) -> bool:
    """Whether this is `application/json` or a `+json` type, with any parameters.

    A missing type is not: Kratos always sends one, and a hook may be set up to send forms.
    """
    media_type = content_type.decode("latin-1").partition(";")[0].strip().lower()
    return _JSON_MEDIA_TYPE.fullmatch(media_type) is not None


# The rest of the body is still to come, so the connection cannot be used again.
_CLOSE: Final = {"Connection": "close"}
# Kratos obeys it before each of its three attempts: by then there may be capacity.
RETRY_AFTER: Final = {"Retry-After": "20"}


def _too_large() -> Rejected:
    return Rejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large", _CLOSE)


class BodyBudget:
    """The bytes that all bodies together may hold while they arrive in parts."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def take(self, size: int) -> None:
        """Reserve so many bytes; raises Rejected when fewer are left."""
        if size > self._left:
            headers = {**_CLOSE, **RETRY_AFTER}
            raise Rejected(HTTPStatus.SERVICE_UNAVAILABLE, "try again later", headers)
        self._left -= size

    def release(self, size: int) -> None:
        self._left += size


async def read_body(
    request: Request, headers: RawHeaders, max_bytes: int, timeout: timedelta, budget: BodyBudget
) -> bytes:
    """Read the whole body, however it is sent.

    Raises Rejected as soon as its length is declared or seen to be more than `max_bytes`, when the
    budget has no room or the time is over, and Starlette's ClientDisconnect.
    """
    if _declares_more_than(max_bytes, headers.get(b"content-length", b"")):
        raise _too_large()
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
        text = "the body came too slowly"
        raise Rejected(HTTPStatus.REQUEST_TIMEOUT, text, _CLOSE) from None


async def _whole_body(receive: Receive, max_bytes: int, budget: BodyBudget) -> bytes:
    body = bytearray()
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > max_bytes:
                raise _too_large()
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
