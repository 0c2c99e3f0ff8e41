"""Times and ages as people give them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from application.ports.purge import SHORTEST_RETENTION

FOREVER: Final = timedelta.max
_AGE: Final = re.compile(r"(\d{1,6}) ?(h|d|w)", re.ASCII)
_AGO: Final = re.compile(r"(\d{1,5}) ?(s|min|m|h|d|w)", re.ASCII)
_UNITS: Final = {
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
            return int(ago[1]) * _UNITS[ago[2]]
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
        age = int(read[1]) * _UNITS[read[2]]
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
        interval = int(read[1]) * _UNITS[read[2]] if read else timedelta()
        if interval < timedelta(minutes=1):
            self.fail(f"{value!r} is no interval such as 15min, 2h or 1d.", param, ctx)
        return interval
