"""Doing once more what another transaction was in the way of."""

from collections.abc import Callable
from typing import TypeVar

from application.ports.unit_of_work import ConcurrencyConflict

Done = TypeVar("Done")


def despite_conflicts(
    do: Callable[[], Done], most: int, pause: Callable[[float], None], seconds: float
) -> Done:
    """Do it, and after each of so many conflicts pause and do it again.

    Raises the ConcurrencyConflict that is one too many, and whatever else ``do`` raises.
    """
    for _ in range(most):
        try:
            return do()
        except ConcurrencyConflict:
            pause(seconds)
    return do()
