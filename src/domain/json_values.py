"""JSON as Python holds it: what is absent, and when two values are the same."""

import json
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Final, TypeAlias

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


class Absent(Enum):
    """The type of `ABSENT`: a key that was not there, as opposed to one that was null."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
WRITTEN_OUT_UP_TO: Final = 10**21
"""From here on a number that a double says in short stays a double, as Go and JavaScript write it.

As an integer 1e308 has 309 digits.
"""
_OF_MANY_KINDS: Final = frozenset({bool, int, float, dict, list})
"""The types of which equal values may differ, or different ones say the same."""


def canonical(value: Json) -> str:
    """One text for all spellings of a value: keys sorted, numbers by what they count (1.0 is 1)."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"))


def same(one: object, other: object) -> bool:
    """Whether both say exactly the same; 1 is 1.0, but neither is true, nor 2**53 + 1.

    A float is a double: so an integer is the same as one if it is nearest to it.
    """
    if one is other:
        return True
    if type(one) not in _OF_MANY_KINDS:
        return one == other
    if float in (type(one), type(other)):
        return _double(one) == _double(other)
    return _same_inside(one, other, same)


def same_as_doubles(one: object, other: object) -> bool:
    """Whether both say the same once every number in them is a 64-bit float, as in Jsonnet."""
    if (double := _double(one)) is not None:
        return double == _double(other)
    return one is other or _same_inside(one, other, same_as_doubles)


def _same_inside(one: object, other: object, same: Callable[[object, object], bool]) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            map(same, one.values(), map(other.__getitem__, one))
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def _double(value: object) -> float | None:
    """The double nearest to a number; None for anything else, also for a boolean."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return as_double(value)
    return None


def as_double(number: float) -> float:
    """The 64-bit float nearest to a number; beyond the largest of them, infinity."""
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def plain(value: Json) -> Json:
    """The value with every number in one spelling: 1.0 is 1, and 10**22 is 1e22."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _plain_number(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _plain_number(number: float) -> float:
    if isinstance(number, int):
        return short(number)
    is_short = number.is_integer() and -WRITTEN_OUT_UP_TO < number < WRITTEN_OUT_UP_TO
    return int(number) if is_short else number


def short(number: int) -> float:
    """A large integer as the double that is written with the same digits, if there is one."""
    if -WRITTEN_OUT_UP_TO < number < WRITTEN_OUT_UP_TO:
        return number
    double = as_double(number)
    return double if Decimal(repr(double)) == number else number
