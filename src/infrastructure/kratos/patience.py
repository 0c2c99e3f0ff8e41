"""Trying again: with growing pauses, for a bounded time, as Kratos asks for it."""

import time
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from random import uniform
from typing import Final, NamedTuple, TypeVar

import structlog

from application.ports.kratos import KratosUnavailable
from infrastructure.kratos.circuit import Circuit
from infrastructure.kratos.rate import TokenBucket

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 20.0
MOST_DOUBLINGS: Final = 10
SLICE: Final = 0.5
"""A pause is made of such pieces, so that whoever wants to end it is heard."""

Result = TypeVar("Result")
_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class AskedToWait(KratosUnavailable):
    """Kratos answers, and says that it will not serve this call for a time."""


class Patience(NamedTuple):
    """How many seconds one attempt may take, and all of them with the pauses between.

    ``if_asked`` is for all of them where Kratos itself said how long to wait.
    """

    attempt: float
    in_all: float
    if_asked: float


class Persistence:
    """Tries calls until they succeed, at the rate and through the circuit that all calls share.

    ``clock`` gives seconds that only grow; ``pause`` waits for so many, and may raise to end it.
    Safe to use from many threads.
    """

    def __init__(
        self,
        circuit: Circuit,
        rate: TokenBucket | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._circuit = circuit
        self._rate = rate
        self._clock = clock
        self._pause = pause

    def call(self, patience: Patience, attempt: Callable[[float], Result]) -> Result:
        """Give what an attempt gives; it is told how many seconds it has.

        Raises KratosUnavailable, the last one, when time is up or would be after the next pause.
        What else an attempt raises is raised at once.
        """
        began = self._clock()
        ends = began + patience.in_all
        for number in count():
            self._await_turn(ends)
            try:
                with self._circuit.attempt():
                    return attempt(max(min(patience.attempt, ends - self._clock()), 0.1))
            except KratosUnavailable as error:
                if isinstance(error, AskedToWait):
                    ends = began + max(patience.in_all, patience.if_asked)
                wait = _pause_after(number, error.retry_after)
                if self._clock() + wait >= ends:
                    raise
                _log.warning("kratos_retry", problem=error.problem, wait_seconds=round(wait, 1))
            self._wait(wait)
        raise AssertionError("counting does not end")

    def _await_turn(self, ends: float) -> None:
        if self._rate is None:
            return self._pause(0)
        wait = self._rate.take(ends - self._clock())
        if wait is None:
            raise KratosUnavailable("too many calls wait for their turn")
        return self._wait(wait)

    def _wait(self, seconds: float) -> None:
        until = self._clock() + seconds
        self._pause(0)
        while (left := until - self._clock()) > 0:
            self._pause(min(left, SLICE))


def _pause_after(number: int, retry_after: timedelta | None) -> float:
    """Doubling and capped, up to a half less; a little more than was asked for, if it was."""
    pause = min(FIRST_PAUSE * 2.0 ** min(number, MOST_DOUBLINGS), LONGEST_PAUSE)
    pause *= uniform(0.5, 1.0)  # noqa: S311
    return pause if retry_after is None else retry_after.total_seconds() + pause / 10
