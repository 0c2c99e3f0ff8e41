"""Retries, the circuit breaker and the Retry-After header."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from kratos_sync.application.ports.kratos import KratosError, KratosRefused, KratosUnavailable
from kratos_sync.application.rate_limiter import RateLimiter
from kratos_sync.infrastructure.kratos.retrying import (
    LONGEST_RETRY_AFTER,
    PROBE,
    AskedToWait,
    CircuitBreaker,
    RetryingCaller,
    TimeLimits,
    retry_after,
)
from tests.infrastructure.kratos.clock import Clock

SHORT = TimeLimits(attempt=5, total=10, total_if_asked=10)
LONG = TimeLimits(attempt=60, total=180, total_if_asked=900)


class Attempts:
    """Fails as a test wants, and then succeeds; each attempt takes ``takes`` seconds."""

    def __init__(
        self, *errors: Exception, for_ever: Exception | None = None, takes: float = 0
    ) -> None:
        self.clock = Clock()
        self.began: list[float] = []
        self.given: list[float] = []
        self._errors = list(errors)
        self._for_ever = for_ever
        self._takes = takes

    def __call__(self, seconds: float) -> str:
        self.began.append(self.clock.now)
        self.given.append(seconds)
        self.clock.now += min(self._takes, seconds)
        if error := self._errors.pop(0) if self._errors else self._for_ever:
            raise error
        return "what was asked for"

    def call(self, limits: TimeLimits, rate: RateLimiter | None = None) -> str:
        circuit = CircuitBreaker(clock=self.clock)
        return RetryingCaller(circuit, rate, self.clock, self.clock.pause).call(limits, self)


def test_what_succeeds_is_tried_once() -> None:
    attempts = Attempts()

    assert attempts.call(SHORT) == "what was asked for"
    assert attempts.given == [5]
    assert sum(attempts.clock.pauses) == 0


def test_a_failure_is_tried_again_after_a_pause_that_grows() -> None:
    attempts = Attempts(*[KratosUnavailable("no answer")] * 4)

    assert attempts.call(LONG) == "what was asked for"
    gaps = [after - before for before, after in pairwise(attempts.began)]
    for number, gap in enumerate(gaps):
        assert 0.1 * 2**number - 1e-6 <= gap <= 0.2 * 2**number + 1e-6


@pytest.mark.parametrize(("limits", "seconds"), [(SHORT, 10), (LONG, 180)])
@pytest.mark.parametrize("takes", [0, 1, 100])
def test_it_is_given_up_when_the_time_is_up(
    limits: TimeLimits, seconds: float, takes: float
) -> None:
    attempts = Attempts(for_ever=KratosUnavailable("no answer"), takes=takes)

    with pytest.raises(KratosUnavailable):
        attempts.call(limits)

    took = attempts.clock.now - 1000
    assert seconds / 4 < took <= seconds + 0.2


def test_a_circuit_that_is_open_is_waited_for_with_long_limits_alone() -> None:
    short = Attempts(for_ever=KratosUnavailable("no answer"))
    long = Attempts(for_ever=KratosUnavailable("no answer"))

    for attempts, limits in ((short, SHORT), (long, LONG)):
        with pytest.raises(KratosUnavailable):
            attempts.call(limits)

    assert len(short.began) == 5
    assert 10 < len(long.began) < 20


def test_a_scan_waits_as_long_as_kratos_asks() -> None:
    attempts = Attempts(AskedToWait("it answered 429", timedelta(minutes=10)))

    assert attempts.call(LONG) == "what was asked for"
    assert 600 <= attempts.began[1] - attempts.began[0] < 601


def test_a_scan_that_is_asked_to_wait_again_and_again_ends() -> None:
    attempts = Attempts(for_ever=AskedToWait("it answered 429", timedelta(minutes=1)))

    with pytest.raises(AskedToWait) as error:
        attempts.call(LONG)

    assert error.value.retry_after == timedelta(minutes=1)
    assert len(attempts.began) == 15


def test_one_call_does_not_wait_for_what_takes_too_long() -> None:
    attempts = Attempts(AskedToWait("it answered 429", timedelta(seconds=30)))

    with pytest.raises(KratosUnavailable) as error:
        attempts.call(SHORT)

    assert error.value.retry_after == timedelta(seconds=30)
    assert sum(attempts.clock.pauses) == 0


def test_a_refusal_is_not_tried_again() -> None:
    attempts = Attempts(KratosRefused("it answered 401", 401))

    with pytest.raises(KratosRefused):
        attempts.call(LONG)

    assert len(attempts.began) == 1


def test_every_attempt_waits_for_its_turn() -> None:
    attempts = Attempts(*[KratosUnavailable("no answer")] * 4)

    attempts.call(LONG, RateLimiter(0.5, clock=attempts.clock))

    gaps = [after - before for before, after in pairwise(attempts.began)]
    assert min(gaps) >= 2 - 1e-6


def test_a_turn_that_comes_too_late_is_not_waited_for() -> None:
    attempts = Attempts()
    bucket = RateLimiter(1, clock=attempts.clock)
    for _ in range(20):
        bucket.take(100)

    with pytest.raises(KratosUnavailable, match="turn"):
        attempts.call(SHORT, bucket)

    assert not attempts.began


def test_a_pause_can_end_the_wait_within_half_a_second() -> None:
    attempts = Attempts(AskedToWait("it answered 429", timedelta(minutes=10)))

    def pause(seconds: float) -> None:
        attempts.clock.pause(seconds)
        if attempts.clock.now > 1030:
            raise KeyboardInterrupt

    caller = RetryingCaller(CircuitBreaker(clock=attempts.clock), None, attempts.clock, pause)
    with pytest.raises(KeyboardInterrupt):
        caller.call(LONG, attempts)

    assert attempts.clock.now <= 1030.5 + 1e-6


def test_a_retry_is_logged() -> None:
    with capture_logs() as lines:
        Attempts(KratosUnavailable("no answer")).call(SHORT)

    assert [(line["event"], line["problem"]) for line in lines] == [("kratos_retry", "no answer")]


REST = timedelta(seconds=15)


class Caller:
    """Makes attempts through a circuit that opens after three failures."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.circuit = CircuitBreaker(3, REST, self.clock)
        self.made = 0

    def attempt(self, error: BaseException | None = None) -> None:
        with self.circuit.attempt():
            self.made += 1
            if error is not None:
                raise error

    def fail(self, times: int = 1, retry_after: timedelta | None = None) -> None:
        for _ in range(times):
            with pytest.raises(KratosUnavailable, match="no answer"):
                self.attempt(KratosUnavailable("no answer", retry_after))

    def refused(self) -> timedelta | None:
        """How long an attempt is asked to wait that is not even made."""
        made = self.made
        with pytest.raises(KratosUnavailable) as refusal:
            self.attempt()
        assert self.made == made
        return refusal.value.retry_after


@pytest.fixture
def caller() -> Caller:
    return Caller()


def test_a_few_failures_open_nothing(caller: Caller) -> None:
    caller.fail(2)
    caller.attempt()
    caller.fail(2)
    caller.attempt()

    assert caller.made == 6


def test_failures_in_a_row_open_it_for_a_rest(caller: Caller) -> None:
    caller.fail(3)
    caller.clock.now += 5

    assert caller.refused() == timedelta(seconds=10)


def test_after_the_rest_one_call_tries_and_the_others_wait(caller: Caller) -> None:
    caller.fail(3)
    caller.clock.now += 15

    with caller.circuit.attempt():
        assert caller.refused() == PROBE
    caller.attempt()


def test_a_call_that_tries_in_vain_opens_it_again(caller: Caller) -> None:
    caller.fail(3)
    caller.clock.now += 15
    caller.fail()

    assert caller.refused() == REST


def test_a_probe_that_never_returns_does_not_block_the_others(caller: Caller) -> None:
    caller.fail(3)
    caller.clock.now += 15
    with pytest.raises(KeyboardInterrupt):
        caller.attempt(KeyboardInterrupt())

    assert caller.refused() == PROBE
    caller.clock.now += PROBE.total_seconds()
    caller.attempt()


def test_a_pause_that_kratos_asks_for_applies_to_every_call(caller: Caller) -> None:
    caller.fail(retry_after=timedelta(seconds=60))

    assert caller.refused() == timedelta(seconds=60)
    caller.clock.now += 60
    caller.attempt()


def test_a_refusal_is_an_answer(caller: Caller) -> None:
    caller.fail(2)
    with pytest.raises(KratosError):
        caller.attempt(KratosRefused("it answered 400", 400))
    caller.fail(2)
    caller.attempt()


def test_an_interruption_does_not_count_as_a_failure_of_kratos(caller: Caller) -> None:
    caller.fail(2)
    with pytest.raises(KeyboardInterrupt):
        caller.attempt(KeyboardInterrupt())
    caller.fail()

    assert caller.refused() == REST


NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("600", 600),
        ("601", 600),
        ("9" * 5000, 600),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30),
        ("Monday, 23-Nov-26 12:00:30 GMT", 30),
        ("Mon Nov 23 12:00:30 2026", 30),
        ("Mon, 23 Nov 2026 11:59:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 600),
    ],
)
def test_seconds_and_dates_are_understood_and_capped(said: str, seconds: int) -> None:
    assert retry_after({"retry-after": said}, lambda: NOW) == timedelta(seconds=seconds)


def test_a_date_is_compared_with_the_servers_own() -> None:
    headers = {
        "retry-after": "Mon, 23 Nov 2026 15:00:30 GMT",
        "date": "Mon, 23 Nov 2026 15:00:00 GMT",
    }

    assert retry_after(headers, lambda: NOW) == timedelta(seconds=30)


@pytest.mark.parametrize("said", ["", "soon", "-1", "1.5", "٧", "Mon, 99 Nov 2026", "1e9"])
def test_an_unreadable_retry_after_is_ignored(said: str) -> None:
    assert retry_after({"retry-after": said}, lambda: NOW) is None


def test_a_missing_retry_after_is_ignored() -> None:
    assert retry_after({}) is None
    assert timedelta(minutes=10) == LONGEST_RETRY_AFTER
