"""What Kratos, and whoever set it up, say in the headers of a webhook; none of it is needed."""

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

import structlog
from starlette.requests import Request

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
