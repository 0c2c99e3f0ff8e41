"""A bounded rate, by a clock that a test moves."""

import pytest

from kratos_sync.application.rate_limiter import RateLimiter


class Clock:
    """Time that passes only when somebody pauses, or when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.mark.parametrize(("rate", "step"), [(500, 125), (4, 1), (1, 1)])
def test_a_step_is_a_quarter_second_of_work(rate: int, step: int) -> None:
    assert RateLimiter(rate).step == step


@pytest.mark.parametrize("takes", [0.0, 0.05, 0.25, 1.0])
def test_no_more_is_done_than_the_rate_allows_however_long_it_takes(takes: float) -> None:
    clock, done = Clock(), 0
    pace = RateLimiter(100, clock=clock, pause=clock.pause)
    began = clock.now
    for _ in range(40):
        done += pace.step
        clock.now += takes
        pace.spend(pace.step)
        assert done <= 100 * (clock.now - began) + pace.step
    assert clock.now - began == pytest.approx(40 * max(0.25, takes), abs=0.3)


def test_what_a_long_stop_cost_is_not_made_up_for() -> None:
    clock = Clock()
    pace = RateLimiter(100, clock=clock, pause=clock.pause)
    clock.now += 3_600
    began = clock.now
    for _ in range(40):
        pace.spend(25)
    assert clock.now - began >= 9.75


def test_nothing_done_costs_no_time() -> None:
    clock = Clock()
    RateLimiter(1, clock=clock, pause=clock.pause).spend(0)
    assert clock.now == 1_000.0
