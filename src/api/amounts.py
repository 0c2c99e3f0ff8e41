"""How commands write amounts, durations, times and sizes."""

from datetime import UTC, datetime, timedelta
from math import floor, log10
from typing import Final

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_SIZES: Final = ("bytes", "kB", "MB", "GB", "TB", "PB")
SIGNIFICANT_DIGITS: Final = 3


def duration(span: timedelta, units: int = 2) -> str:
    """Write a duration in its largest units: ``12 ms``, ``7 s``, ``3 min 5 s``, ``2 d``."""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s".replace(".0 ", " ")
    parts: list[str] = []
    for unit, size in _UNITS:
        if seconds >= size or parts:
            whole, seconds = divmod(seconds, size)
            parts.append(f"{int(whole)} {unit}" if whole else "")
    return " ".join(part for part in parts[:units] if part)


def ago(at: datetime, now: datetime, units: int = 1) -> str:
    """Write how long ago that was: ``3 h ago``."""
    return f"{duration(now - at, units)} ago"


def moment(at: datetime) -> str:
    """Write a point in time, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(at: datetime) -> str:
    """Write a point in time for machines: RFC 3339 in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def amount(number: int, what: str) -> str:
    """Write an amount: ``1 delivery``, ``1,200 events``."""
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"


def roughly(number: int) -> str:
    """Write an estimate with three significant digits: ``about 1,990,000``."""
    digits = floor(log10(number)) + 1 if number > 0 else 1
    return f"about {round(number, SIGNIFICANT_DIGITS - digits):,}"


def size(number: int) -> str:
    """Write a number of bytes in decimal units: ``12 kB``, ``1.2 GB``."""
    shown, unit = float(number), 0
    while round(shown) >= 1_000:  # noqa: PLR2004
        shown, unit = shown / 1_000, unit + 1
    digits = 1 if unit and shown < 10 else 0  # noqa: PLR2004
    return f"{shown:.{digits}f} {_SIZES[unit]}"
