"""How long a server asks to be left alone: the `Retry-After` header (RFC 9110)."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST: Final = timedelta(minutes=10)


def retry_after(
    headers: Mapping[str, str], now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> timedelta | None:
    """Give what the header says, ten minutes at most; None if there is none, or no sense in it.

    A date is compared with the server's own, where it gives one: clocks differ.
    """
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        # Of more digits Python would not make a number, and it is ten minutes anyhow.
        return min(timedelta(seconds=int(said[:9])), LONGEST)
    until = _moment(said)
    if until is None:
        return None
    return min(max(until - (_moment(headers.get("date", "")) or now()), timedelta()), LONGEST)


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
