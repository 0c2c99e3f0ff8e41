"""Points in time as people give them: so long ago, or by the calendar."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

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
