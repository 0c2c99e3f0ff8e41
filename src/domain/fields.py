"""Typed readings of one field of a JSON object, each of which names the field when it fails.

A message never holds the value: it may be personal data, and messages end up in logs.
"""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from domain import uuids
from domain.json_values import ABSENT, Absent, Json
from domain.times import from_rfc3339


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
    if isinstance(value, str) and (known := uuids.from_text(value)) is not None:
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
    if isinstance(value, str) and (known := uuids.from_text(value)) is not None:
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
