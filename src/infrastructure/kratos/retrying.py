"""Retries with growing pauses, until a deadline, through a circuit breaker."""

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
from kratos_sync.infrastructure.observability.observer import UNOBSERVED, Observer

FAILURES_IN_A_ROW: Final = 5
REST: Final = timedelta(seconds=15)
PROBE: Final = timedelta(seconds=3)
"""How long the other calls wait for the one that probes."""
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 20.0
MOST_DOUBLINGS: Final = 10
SLICE: Final = 0.5
"""Pauses are made of such pieces, so that they can be ended."""
LONGEST_RETRY_AFTER: Final = timedelta(minutes=10)

Result = TypeVar("Result")

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class AskedToWait(KratosUnavailable):
    """Kratos answers, and asks the caller to wait."""


class CircuitBreaker:
    """Opens after so many failures in a row, or where Kratos asks for a pause.

    After its rest it lets a call through every few seconds, and closes when one is answered.
    ``clock`` gives seconds that only grow. Safe to use from many threads.
    """

    def __init__(
        self,
        failures_in_a_row: int = FAILURES_IN_A_ROW,
        rest: timedelta = REST,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._observer = observer
        self._most_failures = failures_in_a_row
        self._rest = rest
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._lock = Lock()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Count the outcome of an attempt. Raises KratosUnavailable while the circuit is open."""
        self._enter()
        try:
            yield
        except KratosUnavailable as error:
            self._failed(error.retry_after)
            raise
        except KratosError:  # an answer all the same
            self._answered()
            raise
        self._answered()

    def _enter(self) -> None:
        with self._lock:
            if self._open_until is None:
                return
            now = self._clock()
            if self._open_until > now:
                left = timedelta(seconds=self._open_until - now)
                raise KratosUnavailable("the circuit is open", left)
            self._open_until = now + PROBE.total_seconds()

    def _failed(self, retry_after: timedelta | None) -> None:
        with self._lock:
            self._failures += 1
            if not retry_after and self._failures < self._most_failures:
                return
            was_closed = self._open_until is None
            rest = retry_after or self._rest
            until = self._clock() + rest.total_seconds()
            self._open_until = max(until, self._open_until or until)
        if was_closed:
            self._observer.circuit(is_open=True)
            _log.warning("kratos_circuit_opened", rest_seconds=round(rest.total_seconds(), 1))

    def _answered(self) -> None:
        with self._lock:
            was_open = self._open_until is not None
            self._failures = 0
            self._open_until = None
        if was_open:
            self._observer.circuit(is_open=False)
            _log.info("kratos_circuit_closed")


class TimeLimits(NamedTuple):
    """Seconds for one attempt, and for all attempts and the pauses between them.

    ``total_if_asked`` replaces ``total`` where Kratos itself asked for a pause.
    """

    attempt: float
    total: float
    total_if_asked: float


class RetryingCaller:
    """Retries calls, at a rate and through a circuit breaker that all calls share.

    ``pause`` waits for so many seconds, and may raise to end the wait. Safe for many threads.
    """

    def __init__(
        self,
        circuit_breaker: CircuitBreaker,
        rate_limiter: RateLimiter | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._circuit_breaker = circuit_breaker
        self._rate_limiter = rate_limiter
        self._clock = clock
        self._pause = pause

    def call(self, limits: TimeLimits, attempt: Callable[[float], Result]) -> Result:
        """Call ``attempt`` with the seconds that it may take, until it succeeds; give its result.

        Raises the last KratosUnavailable when no time is left, and any other error at once.
        """
        began = self._clock()
        ends = began + limits.total
        for number in count():
            self._await_turn(ends)
            try:
                with self._circuit_breaker.attempt():
                    return attempt(max(min(limits.attempt, ends - self._clock()), 0.1))
            except KratosUnavailable as error:
                if isinstance(error, AskedToWait):
                    ends = began + max(limits.total, limits.total_if_asked)
                wait = _backoff(number, error.retry_after)
                if self._clock() + wait >= ends:
                    raise
                _log.warning("kratos_retry", problem=error.problem, wait_seconds=round(wait, 1))
            self._wait(wait)
        raise AssertionError("counting does not end")

    def _await_turn(self, ends: float) -> None:
        turn = self._rate_limiter.take(ends - self._clock()) if self._rate_limiter else 0.0
        if turn is None:
            raise KratosUnavailable("too many calls wait for their turn")
        self._wait(turn)

    def _wait(self, seconds: float) -> None:
        until = self._clock() + seconds
        self._pause(0)
        while (left := until - self._clock()) > 0:
            self._pause(min(left, SLICE))


def _backoff(number: int, retry_after: timedelta | None) -> float:
    """Double the pause, up to a half less by chance; add a little to what Kratos asked for."""
    pause = min(FIRST_PAUSE * 2.0 ** min(number, MOST_DOUBLINGS), LONGEST_PAUSE)
    pause *= uniform(0.5, 1.0)  # noqa: S311
    return pause if retry_after is None else retry_after.total_seconds() + pause / 10


def retry_after(
    headers: Mapping[str, str], now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> timedelta | None:
    """Read the Retry-After header, ten minutes at most; None if it is absent or unreadable.

    A date is compared with the server's own, where it gives one: clocks differ.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        # Python refuses to read numbers of very many digits.
        return min(timedelta(seconds=int(value[:9])), LONGEST_RETRY_AFTER)
    if (until := _moment(value)) is None:
        return None
    left = until - (_moment(headers.get("date", "")) or now())
    return min(max(left, timedelta()), LONGEST_RETRY_AFTER)


def _moment(written: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(written)
    except (ValueError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
