"""The circuit breaker."""

from datetime import timedelta

import pytest

from kratos_sync.application.ports.kratos import KratosError, KratosRefused, KratosUnavailable
from kratos_sync.infrastructure.kratos.retrying import PROBE, Circuit
from tests.infrastructure.kratos.clock import Clock

REST = timedelta(seconds=15)


class Caller:
    """Makes attempts through a circuit that opens after three failures."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.circuit = Circuit(3, REST, self.clock)
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


def test_a_call_that_tries_and_never_comes_back_keeps_nobody_out(caller: Caller) -> None:
    caller.fail(3)
    caller.clock.now += 15
    with pytest.raises(KeyboardInterrupt):
        caller.attempt(KeyboardInterrupt())

    assert caller.refused() == PROBE
    caller.clock.now += PROBE.total_seconds()
    caller.attempt()


def test_a_rest_that_kratos_asks_for_is_kept_by_everybody(caller: Caller) -> None:
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


def test_to_be_interrupted_says_nothing_about_kratos(caller: Caller) -> None:
    caller.fail(2)
    with pytest.raises(KeyboardInterrupt):
        caller.attempt(KeyboardInterrupt())
    caller.fail()

    assert caller.refused() == REST
