"""The trace context that events carry: a W3C ``traceparent``, version-traceid-parentid-flags."""

import re
from typing import Final

WELL_FORMED: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_ODD: Final = frozenset("13579bdf")


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a ``traceparent``; None where there is none."""
    parts = traceparent.split("-") if traceparent else []
    return parts[1] if len(parts) >= 4 else None  # noqa: PLR2004


def is_sampled(traceparent: str | None) -> bool:
    """Whether the spans of this trace are recorded."""
    # The flag is the last bit; most contexts end here.
    if traceparent is None or traceparent[-1:] not in _ODD:
        return False
    return WELL_FORMED.fullmatch(traceparent) is not None
