"""How much is dispatched at a time, and how soon the relay looks again."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kratos_sync.infrastructure.bus.relay import (
    BUSY_SECONDS,
    FIRST_BATCHES,
    LONGEST_PAUSE_SECONDS,
    MOST_BATCHES,
    QUICK_PART_OF_LEASE,
    Window,
)

LEASE = timedelta(seconds=30)
QUICK_SECONDS = LEASE.total_seconds() * QUICK_PART_OF_LEASE
NOW = 1_000.0
SOON = NOW + QUICK_SECONDS / 2
LATE = NOW + 2 * QUICK_SECONDS


def full_window(batch_size: int = 10) -> Window:
    """A window that was filled up just now."""
    window = Window(batch_size, LEASE)
    window.dispatched(window.size, NOW)
    return window


def test_at_first_a_few_batches_may_be_under_lease() -> None:
    assert Window(100, LEASE).room(0, NOW) == FIRST_BATCHES * 100


def test_there_is_no_room_until_half_of_it_is_finished() -> None:
    window = full_window()
    full = window.size

    assert window.room(full, LATE) == 0
    assert window.room(full // 2 + 1, LATE) == 0
    assert window.room(full // 2, LATE) == full - full // 2


def test_it_doubles_when_the_workers_finish_half_of_it_quickly() -> None:
    window = full_window()
    full = window.size

    assert window.room(full // 2, SOON) == 2 * full - full // 2
    assert window.size == 2 * full


def test_it_stays_as_it_is_when_half_of_it_took_a_while() -> None:
    window = full_window()
    window.room(window.size // 2, LATE)

    assert window.size == FIRST_BATCHES * 10


def test_it_does_not_grow_by_a_trickle_that_never_fills_it() -> None:
    window = Window(10, LEASE)
    for leased in range(1, window.size // 2):
        assert window.room(leased, NOW) > 0
        window.dispatched(leased + 1, NOW)

    assert window.size == FIRST_BATCHES * 10


def test_it_shrinks_when_leases_ran_out_and_grows_again() -> None:
    window = Window(10, LEASE)
    window.leases_ran_out()
    assert window.size == FIRST_BATCHES * 10 // 4

    window.dispatched(window.size, NOW)
    window.room(0, SOON)
    assert window.size == FIRST_BATCHES * 10 // 2


def test_nothing_is_dispatched_when_more_than_the_window_is_under_lease() -> None:
    window = Window(10, LEASE)

    assert window.room(10 * window.size, NOW) == 0


def test_after_a_dispatch_it_rests_for_a_moment_so_that_batches_fill() -> None:
    window = full_window()

    assert window.rests(NOW) == pytest.approx(BUSY_SECONDS)
    assert window.rests(NOW + BUSY_SECONDS / 2) == pytest.approx(BUSY_SECONDS / 2)
    assert window.rests(LATE) == 0


def test_the_next_look_is_when_it_will_be_half_empty() -> None:
    window = full_window()

    # A quarter took 0.05 s, so will the next.
    assert window.pause(window.size * 3 // 4, NOW + 0.05) == pytest.approx(0.05)


def test_it_is_looked_at_less_and_less_often_while_nothing_is_finished() -> None:
    window = full_window()

    pauses = [window.pause(window.size, LATE) for _ in range(10)]

    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[1]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_it_is_looked_at_less_and_less_often_too_where_what_is_due_cannot_be_had() -> None:
    """Held by who overstays a lease, say: then less than half is under lease, and stays so."""
    window = full_window()

    pauses = [window.pause(window.size // 4, LATE) for _ in range(10)]

    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_it_grows_for_slow_consumers_too() -> None:
    """A consumer of single events that takes two seconds for each, on many threads."""
    window = Window(1, LEASE)
    for second in range(0, 20, 2):
        window.dispatched(window.size, NOW + second)
        window.room(0, NOW + second + 2)

    assert window.size >= 64


looks = st.tuples(st.integers(0, 200_000), st.floats(0, 10))


@given(st.integers(1, 1_000), st.lists(looks | st.none(), max_size=60))
def test_it_always_has_room_for_a_batch_and_never_for_more_than_its_bound(
    batch_size: int, looks: list[tuple[int, float] | None]
) -> None:
    window, now = Window(batch_size, LEASE), NOW
    for look in looks:
        if look is None:
            window.leases_ran_out()
        else:
            leased, seconds = look
            now += seconds
            room = window.room(leased, now)
            assert 0 <= room <= window.size
            assert room == 0 or leased + room == window.size
            assert room > 0 or leased > window.size // 2
            assert BUSY_SECONDS <= window.pause(leased, now) <= LONGEST_PAUSE_SECONDS
            if room:
                window.dispatched(leased + room, now)
        assert batch_size <= window.size <= MOST_BATCHES * batch_size
    assert window.room(0, now) >= batch_size
