"""Trying again: with growing pauses, for a bounded time, as Kratos asks for it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import count
from random import uniform
from threading import Lock
from typing import Final, NamedTuple, TypeVar

import structlog

from kratos_sync.application.ports.kratos import KratosError, KratosUnavailable
from kratos_sync.application.rate_limiter import RateLimiter

FAILURES_IN_A_ROW: Final = 5
REST: Final = timedelta(seconds=15)
"""How long an open circuit rests before one call tries again."""
PROBE: Final = timedelta(seconds=3)
"""How long the others wait for the one call that tries."""

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class Circuit:
    """Opens after so many failures in a row, or when Kratos asks to be left alone for a time.

    After its rest it lets one call through, and closes when that is answered; of a call that does
    not come back it waits a moment, and lets the next one try. ``clock`` gives seconds that only
    grow. Safe to use from many threads.
    """

    def __init__(
        self,
        failures_in_a_row: int = FAILURES_IN_A_ROW,
        rest: timedelta = REST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_failures = failures_in_a_row
        self._rest = rest
        self._clock = clock
        self._failures = 0
        self._rests_until: float | None = None
        self._lock = Lock()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Let one attempt be made, and learn from how it ends.

        Raises KratosUnavailable while the circuit is open, with the rest that is left.
        """
        self._enter()
        try:
            yield
        except KratosUnavailable as error:
            self._failed(error.retry_after)
            raise
        except KratosError:  # an answer, if not the one that was hoped for
            self._answered()
            raise
        self._answered()

    def _enter(self) -> None:
        with self._lock:
            if self._rests_until is None:
                return
            now = self._clock()
            if self._rests_until > now:
                left = timedelta(seconds=self._rests_until - now)
                raise KratosUnavailable("it is left alone for a while", left)
            self._rests_until = now + PROBE.total_seconds()

    def _failed(self, asked_to_rest: timedelta | None) -> None:
        with self._lock:
            self._failures += 1
            if not asked_to_rest and self._failures < self._most_failures:
                return
            is_news = self._rests_until is None
            rest = asked_to_rest or self._rest
            ends = self._clock() + rest.total_seconds()
            self._rests_until = max(ends, self._rests_until or ends)
        if is_news:
            _log.warning("kratos_circuit_opened", rest_seconds=round(rest.total_seconds(), 1))

    def _answered(self) -> None:
        with self._lock:
            was_open = self._rests_until is not None
            self._failures = 0
            self._rests_until = None
        if was_open:
            _log.info("kratos_circuit_closed")


FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 20.0
MOST_DOUBLINGS: Final = 10
SLICE: Final = 0.5
"""A pause is made of such pieces, so that whoever wants to end it is heard."""

Result = TypeVar("Result")


class AskedToWait(KratosUnavailable):
    """Kratos answers, and says that it will not serve this call for a time."""


class Patience(NamedTuple):
    """How many seconds one attempt may take, and all of them with the pauses between.

    ``if_asked`` is for all of them where Kratos itself said how long to wait.
    """

    attempt: float
    in_all: float
    if_asked: float


class RetryingCaller:
    """Tries calls until they succeed, at the rate and through the circuit that all calls share.

    ``clock`` gives seconds that only grow; ``pause`` waits for so many, and may raise to end it.
    Safe to use from many threads.
    """

    def __init__(
        self,
        circuit: Circuit,
        rate: RateLimiter | None = None,
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


LONGEST: Final = timedelta(minutes=10)


def retry_after(
    headers: Mapping[str, str], now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> timedelta | None:
    """Give what the header says, ten minutes at most; None if there is none, or no sense in it.

    A date is compared with the server's own, where it gives one: clocks differ.
    """
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        # Of more digits Python would not make a number, and it is ten minutes anyhow.
        return min(timedelta(seconds=int(said[:9])), LONGEST)
    until = _moment(said)
    if until is None:
        return None
    return min(max(until - (_moment(headers.get("date", "")) or now()), timedelta()), LONGEST)


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
