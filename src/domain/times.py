"""Times as Kratos writes them (RFC 3339, 0 to 9 fraction digits) and as we hold them (UTC, 6)."""

from datetime import UTC, datetime
from typing import Final

_ZERO: Final = datetime(1, 1, 1, tzinfo=UTC)
_read: Final = datetime.fromisoformat


def from_rfc3339(text: str) -> datetime | None:
    """The time in UTC, cut to microseconds; None for Go's zero time, the first second of year 1.

    Kratos sends the same time with nine digits once and six later, so rounding would tell them
    apart. Raises ValueError when `text` is no time, has no offset, or is beyond the year 9999.
    """
    moment = _read(text)
    if moment.tzinfo is UTC and moment.year > 1:
        return moment
    if moment.tzinfo is None:
        raise ValueError("a time without an offset")
    if moment.tzinfo is not UTC:
        try:
            moment = moment.astimezone(UTC)
        except OverflowError:
            if moment.year > 1:
                raise ValueError("a time beyond the year 9999") from None
            return None
    if moment.year == 1 and moment.replace(microsecond=0) == _ZERO:
        return None
    return moment


def to_rfc3339(moment: datetime) -> str:
    """The time in UTC as Kratos writes it: `Z`, and no zero at the end of the fraction."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    text = moment.isoformat()[:-6]
    return f"{text.rstrip('0') if moment.microsecond else text}Z"
