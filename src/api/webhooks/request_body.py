"""Reading a request's body within bounds of size and time."""

import re
from contextlib import aclosing
from datetime import timedelta
from typing import Final

import anyio
from starlette.requests import Request

_JSON_MEDIA_TYPE: Final = re.compile(r"application/json|[\w.!#$&^-]+/[\w.!#$&^+-]+\+json", re.ASCII)


class BodyTooLarge(Exception):
    """The body is larger than allowed; the rest of it was not read."""


class BodyTooSlow(Exception):
    """The body did not arrive in time."""


def is_json(content_type: str | None) -> bool:
    """Whether this is `application/json` or a `+json` type, with any parameters.

    A missing type is not: Kratos always sends one, and a hook may be set up to send forms.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    return _JSON_MEDIA_TYPE.fullmatch(media_type) is not None


async def read_body(request: Request, max_bytes: int, timeout: timedelta) -> bytes:
    """The whole body, however it is sent.

    Raises BodyTooLarge as soon as its length is declared or seen to be more than `max_bytes`,
    BodyTooSlow, or Starlette's ClientDisconnect.
    """
    if _declares_more_than(max_bytes, request.headers.get("content-length", "")):
        raise BodyTooLarge
    body = bytearray()
    try:
        with anyio.fail_after(timeout.total_seconds()):
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    if len(body) + len(chunk) > max_bytes:
                        raise BodyTooLarge
                    body += chunk
    except TimeoutError:
        raise BodyTooSlow from None
    return bytes(body)


def _declares_more_than(max_bytes: int, content_length: str) -> bool:
    digits = content_length.strip().lstrip("0")
    if not (digits.isascii() and digits.isdigit()):
        return False  # what cannot be read as a length is left to the count of what comes
    return len(digits) > len(str(max_bytes)) or int(digits) > max_bytes
