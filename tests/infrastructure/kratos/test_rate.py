"""The token bucket."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kratos_sync.application.rate_limiter import RateLimiter
from tests.infrastructure.kratos.clock import Clock


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
        thread.join(10)

    assert sorted(wait for wait in waits if wait is not None) == pytest.approx(
        [number / 10 for number in range(20)]
    )


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (float("nan"), 1), (1, 0.5)])
def test_a_rate_without_sense_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        RateLimiter(rate, burst)
