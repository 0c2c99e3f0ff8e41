"""JSON as Python holds it: what is absent, and when two values are the same."""

import json
from enum import Enum
from typing import Final, TypeAlias

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


class Absent(Enum):
    """The type of `ABSENT`: a key that was not there, as opposed to one that was null."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
_OF_MANY_KINDS: Final = frozenset({bool, int, float, dict, list})


def canonical(value: Json) -> str:
    """One text for all spellings of a value: keys sorted, numbers by what they count (1.0 is 1)."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def same(one: object, other: object) -> bool:
    """Whether both say exactly the same; 1 is 1.0, but neither is true, nor 2**53 + 1.

    A float is a double: so an integer is the same as one if it is nearest to it.
    """
    if one is other:
        return True
    if one != other:
        return type(one) in _OF_MANY_KINDS and _same_but_for_floats(one, other)
    return type(one) not in _OF_MANY_KINDS or _same_kinds(one, other)


def same_as_doubles(one: Json | Absent, other: Json | Absent) -> bool:
    """Whether both say the same once every number in them is a 64-bit float, as in Jsonnet."""
    if one is other:
        return True
    if isinstance(one, str):
        return one == other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            same_as_doubles(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_as_doubles, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    return one == other or (
        isinstance(one, int | float)
        and isinstance(other, int | float)
        and as_double(one) == as_double(other)
    )


def as_double(number: float) -> float:
    """The 64-bit float nearest to a number; beyond the largest of them, infinity."""
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def _plain(value: Json) -> Json:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _same_but_for_floats(one: object, other: object) -> bool:
    """Whether two values agree where each float counts as the double that it is."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            _same_but_for_floats(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_but_for_floats, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) and isinstance(other, int):
        return one == as_double(other)
    if isinstance(one, int) and isinstance(other, float):
        return as_double(one) == other
    return one == other


def _same_kinds(one: object, other: object) -> bool:
    """Whether two values that Python calls equal agree in what is a boolean and what a number."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key, value in one.items():
            if type(value) in _OF_MANY_KINDS and not _same_kinds(value, other[key]):
                return False
        return True
    if isinstance(one, list) and isinstance(other, list):
        return all(map(_same_kinds, one, other))
    return isinstance(one, bool) is isinstance(other, bool)
