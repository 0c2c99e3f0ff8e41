"""Restores whole numbers beyond 2**53, which Kratos' webhooks round to doubles.

A register maps the place of a number, a JSON pointer such as "/traits/loyalty_number", to the
number that the Admin API gave there. A place that is long, such as below a key of 100,000
characters, goes by its digest. (Jsonnet has no integers; recorded in `tests/recordings`.)
"""

import hashlib
from collections.abc import Mapping
from operator import is_
from typing import Final

from kratos_sync.domain.json_values import WRITTEN_OUT_UP_TO, Json, as_double

EXACT_UP_TO: Final = 2**53
LONGEST_PLACE: Final = 128
"""In characters; else a register would take a multiple of the identity."""


def large_integers(value: Json, place: str) -> dict[str, int]:
    """Each integer in `value` that a double may not hold, by its place below `place`."""
    found: dict[str, int] = {}
    if isinstance(value, dict):
        for key, item in value.items():
            found |= large_integers(item, _below(place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found |= large_integers(item, _below(place, str(index)))
    elif isinstance(value, int) and _has_large(value):
        found[place] = value
    return found


def restored(value: Json, place: str, register: Mapping[str, int]) -> Json:
    """`value` as a webhook says it, its large numbers exact where the register knows them.

    A number that the register does not know, or knows as another double, is cut to the double: an
    integer, or a float where that would have many digits. Returns `value` itself when that changes
    nothing.
    """
    if not _has_large(value):
        return value
    if isinstance(value, dict):
        items = {key: restored(item, _below(place, key), register) for key, item in value.items()}
        return value if all(map(is_, items.values(), value.values())) else items
    if isinstance(value, list):
        listed = [restored(item, _below(place, str(i)), register) for i, item in enumerate(value)]
        return value if all(map(is_, listed, value)) else listed
    return _restored_number(value, place, register) if isinstance(value, int | float) else value


def rounded(value: Json) -> Json:
    """`value` as a webhook would say it: every number a double."""
    return restored(value, "", {})


def _has_large(value: Json) -> bool:
    if isinstance(value, str):
        return False
    if isinstance(value, dict):
        return any(map(_has_large, value.values()))
    if isinstance(value, list):
        return any(map(_has_large, value))
    # A boolean is an int to Python, but never a large one.
    return isinstance(value, int | float) and not -EXACT_UP_TO < value < EXACT_UP_TO


def _restored_number(number: float, place: str, register: Mapping[str, int]) -> float:
    double = as_double(number)
    exact = register.get(place)
    if exact is not None and as_double(exact) == double:
        return exact
    if not double.is_integer():
        return number
    if not -WRITTEN_OUT_UP_TO < double < WRITTEN_OUT_UP_TO:
        return double if isinstance(number, int) else number
    whole = int(double)
    return number if isinstance(number, int) and number == whole else whole


def _below(place: str, key: str) -> str:
    below = f"{place}/{key.replace('~', '~0').replace('/', '~1')}"
    if len(below) <= LONGEST_PLACE:
        return below
    return f"#{hashlib.sha256(below.encode(errors='surrogatepass')).hexdigest()}"
