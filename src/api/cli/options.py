"""Times and amounts: in the words of people, and as JSON has them."""

import getpass
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from math import floor, log10
from typing import Any, Final

import click

from kratos_sync.api.cli.output import harmless
from kratos_sync.application.ports.purge import SHORTEST_RETENTION

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


FOREVER: Final = timedelta.max
_AGE: Final = re.compile(r"(\d{1,6}) ?(h|d|w)", re.ASCII)
_AGO: Final = re.compile(r"(\d{1,5}) ?(s|min|m|h|d|w)", re.ASCII)
_UNITS_OF_TIMES: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


class PointInTime(click.ParamType[timedelta | datetime]):
    """A duration ago (``90s``, ``15min``, ``2h``, ``3d``, ``1w``), or ISO 8601, UTC unless it says.

    See ``resolved``: so long ago is told by the database's clock.
    """

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta | datetime:
        """Read it; what cannot be read is wrong use."""
        if isinstance(value, timedelta | datetime):
            return value
        if ago := _AGO.fullmatch(str(value).strip()):
            return int(ago[1]) * _UNITS_OF_TIMES[ago[2]]
        try:
            at = datetime.fromisoformat(str(value).strip())
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither so long ago (15min, 2h, 3d) nor a time"
                " (2026-11-23T04:37, UTC unless it says otherwise).",
                param,
                ctx,
            )


def resolved(given: timedelta | datetime | None, now: datetime) -> datetime | None:
    """Give the time itself."""
    return now - given if isinstance(given, timedelta) else given


class Age(click.ParamType[timedelta]):
    """How long rows are kept: ``36h``, ``90d``, ``12w`` or ``forever``; a day is the least."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read it; what cannot be read, or is less than a day, is wrong use."""
        if isinstance(value, timedelta):
            return value
        if value == "forever":
            return FOREVER
        read = _AGE.fullmatch(str(value).strip())
        if read is None:
            self.fail(f"{value!r} is no age such as 36h, 90d, 12w or forever.", param, ctx)
        age = int(read[1]) * _UNITS_OF_TIMES[read[2]]
        if age < SHORTEST_RETENTION:
            self.fail("a day is the least: Kratos may call again.", param, ctx)
        if age > timedelta(days=36_500):
            self.fail("for more than a hundred years say forever.", param, ctx)
        return age


class Interval(click.ParamType[timedelta]):
    """How often something is done: ``15min``, ``2h`` or ``1d``; a minute is the least."""

    name = "interval"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read it; what cannot be read, or is less than a minute, is wrong use."""
        read = _AGO.fullmatch(str(value).strip())
        interval = int(read[1]) * _UNITS_OF_TIMES[read[2]] if read else timedelta()
        if interval < timedelta(minutes=1):
            self.fail(f"{value!r} is no interval such as 15min, 2h or 1d.", param, ctx)
        return interval


def confirm(question: str, yes: bool) -> None:
    """Return if ``yes`` was said, or is said now at the terminal.

    Raises click.UsageError where there is no terminal to ask at, and click.Abort for any other
    answer. The question stands on stderr: stdout may be read by a machine.
    """
    if yes:
        return
    if not is_at_terminal():
        raise click.UsageError("nothing was done: without a terminal to ask at, say --yes.")
    click.confirm(harmless(question), abort=True, err=True)


def is_at_terminal() -> bool:
    """Whether a person can answer."""
    return sys.stdin.isatty()


def operator_name(given: str | None) -> str:
    """Give the name that was given, or else that of the operating system's user."""
    if given and given.strip():
        return given.strip()
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"user {os.getuid()}"
