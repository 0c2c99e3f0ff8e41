"""The rate limiter, by a clock that a test moves."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kratos_sync.application.rate_limiter import RateLimiter
from tests.infrastructure.kratos.clock import Clock
from tests.waiting import DEADLINE_SECONDS


def test_tokens_come_evenly() -> None:
    clock = Clock()
    bucket = RateLimiter(4, clock=clock)

    assert [bucket.take(10) for _ in range(4)] == [0, 0.25, 0.5, 0.75]


def test_after_a_rest_there_are_no_more_than_a_burst() -> None:
    clock = Clock()
    bucket = RateLimiter(4, 2, clock)
    clock.now += 3600

    assert [bucket.take(10) for _ in range(3)] == [0, 0, 0.25]


def test_what_would_take_too_long_is_not_taken() -> None:
    clock = Clock()
    bucket = RateLimiter(1, clock=clock)
    bucket.take(0)

    assert bucket.take(0.5) is None
    clock.now += 0.5
    assert bucket.take(0.5) == 0.5


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 10),
    rests=st.lists(st.floats(0, 5), max_size=40),
)
def test_no_stretch_of_time_has_more_than_its_share(
    rate: float, burst: int, rests: list[float]
) -> None:
    clock = Clock()
    bucket = RateLimiter(rate, burst, clock)
    used = []
    for rest in rests:
        clock.now += rest
        wait = bucket.take(1e9)
        assert wait is not None
        used.append(clock.now + wait)

    used.sort()
    for first, start in enumerate(used):
        for last in range(first, len(used)):
            share = burst + (used[last] - start) * rate
            assert last - first + 1 <= share + 1e-3


def test_threads_share_one_rate() -> None:
    clock = Clock()
    bucket = RateLimiter(10, clock=clock)
    waits: list[float | None] = []
    threads = [threading.Thread(target=lambda: waits.append(bucket.take(100))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)

    assert sorted(wait for wait in waits if wait is not None) == pytest.approx(
        [number / 10 for number in range(20)]
    )


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (float("nan"), 1), (1, 0.5)])
def test_a_rate_without_sense_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        RateLimiter(rate, burst)


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
