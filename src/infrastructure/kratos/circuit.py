"""A circuit breaker: a Kratos that does not answer is not asked by everybody all the time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Lock
from typing import Final

import structlog

from application.ports.kratos import KratosError, KratosUnavailable

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
