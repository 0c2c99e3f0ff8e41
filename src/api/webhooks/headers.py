"""What Kratos, and whoever set it up, say in the headers of a webhook; none of it is needed."""

import re
from typing import Final
from uuid import UUID

import structlog
from starlette.datastructures import Headers

_MAX_LABEL: Final = 100
_LABEL: Final = re.compile(rf"[\x20-\x7e]{{1,{_MAX_LABEL}}}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


def trigger_id(headers: Headers) -> UUID | None:
    """The id that all attempts of a call share; None if missing (before Kratos 25.4) or no UUID."""
    value = headers.get("ory-webhook-trigger-id")
    if value is None:
        return None
    if _UUID.fullmatch(value) and UUID(value).int:
        return UUID(value)
    _log.warning("webhook_trigger_id_ignored")
    return None


def traceparent(headers: Headers) -> str | None:
    """The W3C Trace Context, or None where it is missing or malformed."""
    value = headers.get("traceparent", "")
    return value if _TRACEPARENT.fullmatch(value) else None


def hook_label(headers: Headers) -> str | None:
    """What a static header `X-Kratos-Hook` calls the hook; None if missing or unfit for a log."""
    value = headers.get("x-kratos-hook", "")
    return value if _LABEL.fullmatch(value) else None
