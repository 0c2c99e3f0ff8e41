"""Kratos' webhooks compute in doubles: how whole numbers beyond 2**53 come back to what they were.

A register maps the place of a number, a JSON pointer such as "/traits/loyalty_number", to the
number that the Admin API gave there. (Jsonnet has no integers; recorded in `tests/recordings`.)
"""

from collections.abc import Mapping
from operator import is_
from typing import Final

from kratos_sync.domain.json_values import Json, as_double

EXACT_UP_TO: Final = 2**53


def large_integers(value: Json, place: str) -> dict[str, int]:
    """Each integer in `value` that a double may not hold, by its place below `place`."""
    found: dict[str, int] = {}
    if _has_large(value):
        _collect(value, place, found)
    return found


def restored(value: Json, place: str, register: Mapping[str, int]) -> Json:
    """`value` as a webhook says it, its large numbers exact where the register knows them.

    A number that the register does not know, or knows as another double, is cut to the double.
    Returns `value` itself when that changes nothing.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        changed: dict[str, Json] = {}
        for key, item in value.items():
            if _may_be_large(item):
                said = restored(item, _below(place, key) if register else place, register)
                if said is not item:
                    changed[key] = said
        return {**value, **changed} if changed else value
    if isinstance(value, list):
        items = [restored(item, f"{place}/{i}", register) for i, item in enumerate(value)]
        return value if all(map(is_, items, value)) else items
    if isinstance(value, int | float) and _is_large(value):
        return _restored_number(value, place, register)
    return value


def rounded(value: Json) -> Json:
    """`value` as a webhook would say it: every number a double."""
    return restored(value, "", {})


def _is_large(value: Json) -> bool:
    # A boolean is an int to Python, but never a large one.
    return isinstance(value, int | float) and not -EXACT_UP_TO < value < EXACT_UP_TO


def _has_large(value: Json) -> bool:
    if isinstance(value, str):
        return False
    if isinstance(value, dict):
        return any(map(_has_large, value.values()))
    if isinstance(value, list):
        return any(map(_has_large, value))
    return _is_large(value)


def _collect(value: Json, place: str, found: dict[str, int]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _collect(item, _below(place, key), found)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _collect(item, f"{place}/{index}", found)
    elif isinstance(value, int) and _is_large(value):
        found[place] = value


def _may_be_large(value: Json) -> bool:
    return not isinstance(value, str) and (isinstance(value, dict | list) or _is_large(value))


def _restored_number(number: float, place: str, register: Mapping[str, int]) -> float:
    double = as_double(number)
    exact = register.get(place)
    if exact is not None and as_double(exact) == double:
        return exact
    if not double.is_integer():
        return number
    whole = int(double)
    return number if isinstance(number, int) and number == whole else whole


def _below(place: str, key: str) -> str:
    return f"{place}/{key.replace('~', '~0').replace('/', '~1')}"
