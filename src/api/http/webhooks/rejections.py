"""Errors in Kratos' form, which it shows to the person, at the form's fields, in `parse` hooks."""

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from traceback import extract_tb
from typing import Final, TypeAlias

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse

from kratos_sync.domain.json_values import Json


@dataclass(frozen=True, slots=True)
class DetailedMessage:
    """One message: Kratos hands id, text, type and context on to the user interface."""

    id: int
    text: str
    type: str = "error"
    context: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """Messages about one place, a JSON pointer such as "#/traits/email"; None is no place."""

    instance_ptr: str | None
    messages: Sequence[DetailedMessage]


def error_response(
    messages: Sequence[ErrorMessage], status_code: int, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer with these messages as its body."""
    return JSONResponse({"messages": [_to_json(each) for each in messages]}, status_code, headers)


def status_response(
    status_code: int, text: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer to a call that got no further than HTTP: one message, whose id is the status."""
    message = ErrorMessage(None, [DetailedMessage(status_code, text)])
    return error_response([message], status_code, headers)


def _to_json(error: ErrorMessage) -> dict[str, Json]:
    return {
        "instance_ptr": error.instance_ptr,
        "messages": [
            {
                "id": message.id,
                "text": message.text,
                "type": message.type,
                "context": None if message.context is None else dict(message.context),
            }
            for message in error.messages
        ],
    }


RawHeaders: TypeAlias = Mapping[bytes, bytes]

_LABEL: Final = re.compile(rb"[\x20-\x7e]{1,100}")
_UUID: Final = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NO_UUID: Final = b"00000000-0000-0000-0000-000000000000"
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


def first_headers(request: Request) -> RawHeaders:
    """The headers of a request, as they came; of those that are there twice the first."""
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
    """The W3C Trace Context, or None where it is missing or malformed."""
    value = headers.get(b"traceparent")
    return value.decode() if value is not None and _TRACEPARENT.fullmatch(value) else None


def hook_label(headers: RawHeaders) -> str | None:
    """What a static header `X-Kratos-Hook` calls the hook; None if missing or unfit for a log."""
    value = headers.get(b"x-kratos-hook")
    return value.decode() if value is not None and _LABEL.fullmatch(value) else None


class ApiKeys:
    """The active keys, held as digests only; while keys are being changed there are two."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Take the keys; raises ValueError when there is none, or an empty one."""
        self._digests = tuple(_digest(key) if key else b"" for key in keys)
        if not self._digests or not all(self._digests):
            raise ValueError("a webhook needs at least one API key, and none of them empty")

    def open_to(self, offered: bytes) -> bool:
        """Whether this is one of the keys, in a time that tells neither which nor how nearly.

        Digests are of one length whatever was offered, and every one is compared.
        """
        digest = sha256(offered).digest()
        opened = False
        for each in self._digests:
            opened |= hmac.compare_digest(each, digest)
        return opened

    def __repr__(self) -> str:
        return f"<{len(self._digests)} API keys>"


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def describe(error: BaseException) -> dict[str, Json]:
    """The types of an error and of its causes, and where it was raised, innermost place last.

    The texts are left out: a driver's or a parser's message may quote what a person typed.
    """
    types: list[Json] = []
    cause: BaseException | None = error
    while cause is not None:
        types.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    places: list[Json] = [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)
    ]
    return {"error": types[0], "causes": types[1:], "places": places}
