"""The trace context that events carry: a W3C ``traceparent``, version-traceid-parentid-flags."""

import re
from typing import Final

WELL_FORMED: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
SAMPLED: Final = 0x01


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a ``traceparent``; None where there is none."""
    parts = traceparent.split("-") if traceparent else []
    return parts[1] if len(parts) >= 4 else None  # noqa: PLR2004


def is_sampled(traceparent: str | None) -> bool:
    """Whether the spans of this trace are recorded."""
    return (
        traceparent is not None
        and WELL_FORMED.fullmatch(traceparent) is not None
        and bool(int(traceparent[-2:], 16) & SAMPLED)
    )
