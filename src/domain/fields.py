"""Reads one field of a JSON object by its type; anything else raises InvalidField.

A message never holds the value: it may be personal data, and messages end up in logs.
"""

from binascii import unhexlify
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, cast
from uuid import UUID, SafeUUID

from kratos_sync.domain.json_values import Json

_ZERO: Final = datetime(1, 1, 1, tzinfo=UTC)


def from_rfc3339(text: str) -> datetime | None:
    """The time in UTC, cut to microseconds; None for Go's zero time, the first second of year 1.

    Kratos sends the same time with nine digits once and six later, so rounding would make them
    differ. Raises ValueError when `text` is no time, has no offset, or is beyond the year 9999.
    """
    moment = datetime.fromisoformat(text)
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


def time_to_json(moment: datetime | None) -> str | None:
    """The time as `to_rfc3339` writes it; None stays None."""
    return None if moment is None else to_rfc3339(moment)


_UNKNOWN: Final = SafeUUID.unknown
_new: Final = object.__new__
_set: Final = object.__setattr__


def from_text(text: str) -> UUID | None:
    """The UUID that is written in its 36-character form, upper or lower case; None for the rest."""
    if len(text) != 36 or text[8:24:5] != "----":  # noqa: PLR2004
        return None
    try:
        digits = unhexlify(text.replace("-", ""))
    except ValueError:
        return None
    return from_number(int.from_bytes(digits)) if len(digits) == 16 else None  # noqa: PLR2004


def from_number(number: int) -> UUID:
    """The UUID of a number that must be below 2**128: what `UUID(int=number)` gives."""
    # UUID() checks its six ways to be called, which takes longer than everything else here.
    uuid = _new(UUID)
    _set(uuid, "int", number)
    _set(uuid, "is_safe", _UNKNOWN)
    return uuid


class InvalidField(ValueError):
    """A field of a JSON object is not what it must be; the message never holds the value."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


def text(source: Mapping[str, Json], field: str) -> str | None:
    """A string; None when null or absent."""
    value = source.get(field)
    if isinstance(value, str) or value is None:
        return value
    raise InvalidField(field, "is not a string")


def required_text(source: Mapping[str, Json], field: str) -> str:
    """A string."""
    value = source.get(field)
    if isinstance(value, str):
        return value
    raise InvalidField(field, "is not a string")


def time(source: Mapping[str, Json], field: str) -> datetime | None:
    """An RFC 3339 time as `from_rfc3339` reads it; None when null or absent."""
    value = source.get(field)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return from_rfc3339(value)
        except ValueError:
            pass
    raise InvalidField(field, "is not a time")


def uuid(source: Mapping[str, Json], field: str) -> UUID | None:
    """A UUID in its 36-character form; None when null or absent."""
    value = source.get(field)
    if value is None:
        return None
    if isinstance(value, str) and (known := from_text(value)) is not None:
        return known
    raise InvalidField(field, "is not a UUID")


def required_uuid(source: Mapping[str, Json], field: str) -> UUID:
    """A UUID in its 36-character form."""
    value = uuid(source, field)
    if value is None:
        raise InvalidField(field, "is missing")
    return value


def flag(source: Mapping[str, Json], field: str) -> bool:
    """A boolean; false when null or absent."""
    value = source.get(field)
    if isinstance(value, bool) or value is None:
        return bool(value)
    raise InvalidField(field, "is not a boolean")


def integer(source: Mapping[str, Json], field: str) -> int:
    """An integer; a boolean is none."""
    value = source.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidField(field, "is not an integer")


def mapping(source: Mapping[str, Json], field: str) -> dict[str, Json]:
    """An object."""
    value = source.get(field)
    if isinstance(value, dict):
        return value
    raise InvalidField(field, "is not an object")


def mappings(source: Mapping[str, Json], field: str) -> list[dict[str, Json]]:
    """A list of objects; empty when null or absent."""
    value = source.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidField(field, "is not a list")
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise InvalidField(f"{field}[{index}]", "is not an object")
    return cast("list[dict[str, Json]]", value)
