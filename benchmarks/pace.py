"""How fast the machine itself is at the moment: neighbours on the same hardware slow it."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

SECONDS = 0.05
LOOPS = 1_000


def pace() -> float:
    """Rounds a second of a loop in Python that is always the same, timed for so long."""
    began, rounds, seconds = perf_counter(), 0, 0.0
    while seconds < SECONDS:
        for number in range(LOOPS):
            rounds += number >= 0
        seconds = perf_counter() - began
    return round(rounds / seconds, 1)


def found(result: Any, name: str) -> Iterator[Any]:
    """Every value of that name, wherever in a result."""
    if isinstance(result, dict):
        if name in result:
            yield result[name]
        result = list(result.values())
    if isinstance(result, list):
        for part in result:
            yield from found(part, name)
