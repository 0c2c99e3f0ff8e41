"""Trying again, for a bounded time."""

from datetime import timedelta
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from kratos_sync.application.ports.kratos import KratosRefused, KratosUnavailable
from kratos_sync.application.rate_limiter import RateLimiter
from kratos_sync.infrastructure.kratos.retrying import (
    AskedToWait,
    Circuit,
    Patience,
    RetryingCaller,
)
from tests.infrastructure.kratos.clock import Clock

SHORT = Patience(attempt=5, in_all=10, if_asked=10)
LONG = Patience(attempt=60, in_all=180, if_asked=900)


class Attempts:
    """Fails as it is told to, and then succeeds; each attempt takes ``takes`` seconds."""

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

    def persist(self, patience: Patience, rate: RateLimiter | None = None) -> str:
        circuit = Circuit(clock=self.clock)
        return RetryingCaller(circuit, rate, self.clock, self.clock.pause).call(patience, self)


def test_what_succeeds_is_tried_once() -> None:
    attempts = Attempts()

    assert attempts.persist(SHORT) == "what was asked for"
    assert attempts.given == [5]
    assert sum(attempts.clock.pauses) == 0


def test_a_failure_is_tried_again_after_a_pause_that_grows() -> None:
    attempts = Attempts(*[KratosUnavailable("no answer")] * 4)

    assert attempts.persist(LONG) == "what was asked for"
    gaps = [after - before for before, after in pairwise(attempts.began)]
    for number, gap in enumerate(gaps):
        assert 0.1 * 2**number - 1e-6 <= gap <= 0.2 * 2**number + 1e-6


@pytest.mark.parametrize(("patience", "seconds"), [(SHORT, 10), (LONG, 180)])
@pytest.mark.parametrize("takes", [0, 1, 100])
def test_it_is_given_up_when_the_time_is_up(
    patience: Patience, seconds: float, takes: float
) -> None:
    attempts = Attempts(for_ever=KratosUnavailable("no answer"), takes=takes)

    with pytest.raises(KratosUnavailable):
        attempts.persist(patience)

    took = attempts.clock.now - 1000
    assert seconds / 4 < took <= seconds + 0.2


def test_a_circuit_that_is_open_is_waited_for_by_the_patient_alone() -> None:
    hasty = Attempts(for_ever=KratosUnavailable("no answer"))
    patient = Attempts(for_ever=KratosUnavailable("no answer"))

    for attempts, patience in ((hasty, SHORT), (patient, LONG)):
        with pytest.raises(KratosUnavailable):
            attempts.persist(patience)

    assert len(hasty.began) == 5
    assert 10 < len(patient.began) < 20


def test_a_scan_waits_as_long_as_kratos_asks() -> None:
    attempts = Attempts(AskedToWait("it answered 429", timedelta(minutes=10)))

    assert attempts.persist(LONG) == "what was asked for"
    assert 600 <= attempts.began[1] - attempts.began[0] < 601


def test_a_scan_that_is_asked_to_wait_again_and_again_ends() -> None:
    attempts = Attempts(for_ever=AskedToWait("it answered 429", timedelta(minutes=1)))

    with pytest.raises(AskedToWait) as error:
        attempts.persist(LONG)

    assert error.value.retry_after == timedelta(minutes=1)
    assert len(attempts.began) == 15


def test_one_call_does_not_wait_for_what_takes_too_long() -> None:
    attempts = Attempts(AskedToWait("it answered 429", timedelta(seconds=30)))

    with pytest.raises(KratosUnavailable) as error:
        attempts.persist(SHORT)

    assert error.value.retry_after == timedelta(seconds=30)
    assert sum(attempts.clock.pauses) == 0


def test_a_refusal_is_not_tried_again() -> None:
    attempts = Attempts(KratosRefused("it answered 401", 401))

    with pytest.raises(KratosRefused):
        attempts.persist(LONG)

    assert len(attempts.began) == 1


def test_every_attempt_waits_for_its_turn() -> None:
    attempts = Attempts(*[KratosUnavailable("no answer")] * 4)

    attempts.persist(LONG, RateLimiter(0.5, clock=attempts.clock))

    gaps = [after - before for before, after in pairwise(attempts.began)]
    assert min(gaps) >= 2 - 1e-6


def test_a_turn_that_comes_too_late_is_not_waited_for() -> None:
    attempts = Attempts()
    bucket = RateLimiter(1, clock=attempts.clock)
    for _ in range(20):
        bucket.take(100)

    with pytest.raises(KratosUnavailable, match="turn"):
        attempts.persist(SHORT, bucket)

    assert not attempts.began


def test_whoever_pauses_may_end_the_wait_within_half_a_second() -> None:
    attempts = Attempts(AskedToWait("it answered 429", timedelta(minutes=10)))

    def pause(seconds: float) -> None:
        attempts.clock.pause(seconds)
        if attempts.clock.now > 1030:
            raise KeyboardInterrupt

    persistence = RetryingCaller(Circuit(clock=attempts.clock), None, attempts.clock, pause)
    with pytest.raises(KeyboardInterrupt):
        persistence.call(LONG, attempts)

    assert attempts.clock.now <= 1030.5 + 1e-6


def test_a_repetition_is_told_in_the_log() -> None:
    with capture_logs() as lines:
        Attempts(KratosUnavailable("no answer")).persist(SHORT)

    assert [(line["event"], line["problem"]) for line in lines] == [("kratos_retry", "no answer")]
