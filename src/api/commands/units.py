"""Times and amounts: in the words of people, and as JSON has them."""

from datetime import UTC, datetime, timedelta
from math import floor, log10
from typing import Final

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
SIGNIFICANT_DIGITS: Final = 3
KILO: Final = 1_000
_SIZES: Final = ("bytes", "kB", "MB", "GB", "TB", "PB")
TEN: Final = 10
"""Below it a tenth is worth telling."""


def duration(span: timedelta, units: int = 2) -> str:
    """A duration in its largest one or two units: ``12 ms``, ``7 s``, ``3 min 5 s``, ``2 d``."""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < TEN:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    parts: list[str] = []
    for unit, size in _UNITS:
        if seconds >= size or parts:
            whole, seconds = divmod(seconds, size)
            parts.append(f"{int(whole)} {unit}" if whole else "")
    return " ".join(part for part in parts[:units] if part)


def moment(at: datetime) -> str:
    """A point in time, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def amount(number: int, what: str, plural: str | None = None) -> str:
    """An amount of something: ``1 delivery``, ``1,200 events``."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def roughly(number: int) -> str:
    """An estimate, with no more digits than it is worth: ``about 1,990,000``."""
    digits = floor(log10(number)) + 1 if number > 0 else 1
    return f"about {round(number, SIGNIFICANT_DIGITS - digits):,}"


def size(number: int) -> str:
    """An amount of bytes, in decimal units: ``12 kB``, ``1.2 GB``."""
    shown, units = float(number), iter(_SIZES)
    unit = next(units)
    while round(shown) >= KILO:
        shown, unit = shown / KILO, next(units)
    return f"{shown:.{0 if unit == _SIZES[0] or shown >= TEN else 1}f} {unit}"


def iso(at: datetime | None) -> str | None:
    """A point in time for machines: ISO 8601 in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def seconds(span: timedelta | None) -> float | None:
    """A duration for machines."""
    return None if span is None else span.total_seconds()
