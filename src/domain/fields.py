"""Typed readings of one field of a JSON object, each of which names the field when it fails.

A message never holds the value: it may be personal data, and messages end up in logs.
"""

from binascii import unhexlify
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, SafeUUID

from kratos_sync.domain.json_values import ABSENT, Absent, Json

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


_UNKNOWN: Final = SafeUUID.unknown
_new: Final = object.__new__
_set: Final = object.__setattr__
_number: Final = int.from_bytes


def from_text(text: str) -> UUID | None:
    """The UUID that is written in its 36-character form, upper or lower case; None for the rest."""
    if len(text) != 36 or text[8:24:5] != "----":  # noqa: PLR2004
        return None
    try:
        digits = unhexlify(text.replace("-", ""))
    except ValueError:
        return None
    if len(digits) != 16:  # noqa: PLR2004
        return None
    uuid = _new(UUID)
    _set(uuid, "int", _number(digits))
    _set(uuid, "is_safe", _UNKNOWN)
    return uuid


def from_number(number: int) -> UUID:
    """The UUID of a number that must be below 2**128: what `UUID(int=number)` gives."""
    # UUID() weighs its six ways to be called, which takes longer than everything else here.
    uuid = _new(UUID)
    _set(uuid, "int", number)
    _set(uuid, "is_safe", _UNKNOWN)
    return uuid


class InvalidField(ValueError):
    """A field of a JSON object is not what it must be; the value is never told."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field
        self.problem = problem


def text(source: Mapping[str, Json], field: str) -> str | Absent | None:
    """A string, null or absent; anything else raises InvalidField."""
    value = source.get(field, ABSENT)
    if isinstance(value, str) or value is None or value is ABSENT:
        return value
    raise InvalidField(field, "is not a string")


def text_or_none(source: Mapping[str, Json], field: str) -> str | None:
    """A string, where null and absent mean none; anything else raises InvalidField."""
    value = source.get(field)
    if isinstance(value, str) or value is None:
        return value
    raise InvalidField(field, "is not a string")


def required_text(source: Mapping[str, Json], field: str) -> str:
    """A string; anything else raises InvalidField."""
    value = source.get(field)
    if isinstance(value, str):
        return value
    raise InvalidField(field, "is not a string")


def time(source: Mapping[str, Json], field: str) -> datetime | Absent | None:
    """A time in UTC at microseconds; None for null and for Go's zero time; or absent.

    Anything but an RFC 3339 time with an offset raises InvalidField.
    """
    value = source.get(field, ABSENT)
    if isinstance(value, str):
        try:
            return from_rfc3339(value)
        except ValueError:
            raise InvalidField(field, "is not a time") from None
    if value is None or value is ABSENT:
        return value
    raise InvalidField(field, "is not a time")


def time_or_none(source: Mapping[str, Json], field: str) -> datetime | None:
    """A time as `time` reads it, where absent means none."""
    value = source.get(field)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return from_rfc3339(value)
        except ValueError:
            pass
    raise InvalidField(field, "is not a time")


def uuid(source: Mapping[str, Json], field: str) -> UUID | Absent | None:
    """A UUID in its 36-character form, null or absent; anything else raises InvalidField."""
    value = source.get(field, ABSENT)
    if value is None or value is ABSENT:
        return value
    if isinstance(value, str) and (known := from_text(value)) is not None:
        return known
    raise InvalidField(field, "is not a UUID")


def required_uuid(source: Mapping[str, Json], field: str) -> UUID:
    """A UUID likewise; null and absent raise InvalidField too."""
    value = uuid(source, field)
    if isinstance(value, UUID):
        return value
    raise InvalidField(field, "is missing")


def uuid_or_none(source: Mapping[str, Json], field: str) -> UUID | None:
    """A UUID as `uuid` reads it, where absent means none."""
    value = source.get(field)
    if value is None:
        return None
    if isinstance(value, str) and (known := from_text(value)) is not None:
        return known
    raise InvalidField(field, "is not a UUID")


def flag(source: Mapping[str, Json], field: str) -> bool:
    """A boolean, where null and absent mean false; anything else raises InvalidField."""
    value = source.get(field)
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    raise InvalidField(field, "is not a boolean")


def integer(source: Mapping[str, Json], field: str) -> int:
    """An integer; anything else, a boolean too, raises InvalidField."""
    value = source.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidField(field, "is not an integer")


def mapping(source: Mapping[str, Json], field: str) -> dict[str, Json]:
    """An object; anything else raises InvalidField."""
    value = source.get(field)
    if isinstance(value, dict):
        return value
    raise InvalidField(field, "is not an object")


def mappings(source: Mapping[str, Json], field: str) -> list[dict[str, Json]]:
    """A list of objects, empty when null or absent; anything else raises InvalidField."""
    value = source.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidField(field, "is not a list")
    items = [item for item in value if isinstance(item, dict)]
    if len(items) != len(value):
        index = next(i for i, item in enumerate(value) if not isinstance(item, dict))
        raise InvalidField(f"{field}[{index}]", "is not an object")
    return items
