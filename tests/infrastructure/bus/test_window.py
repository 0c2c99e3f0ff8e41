"""How much is dispatched at a time."""

from hypothesis import given
from hypothesis import strategies as st

from infrastructure.bus.window import FIRST_BATCHES, MOST_BATCHES, Window

batch_sizes = st.integers(1, 1_000)


def test_at_first_a_few_batches_may_be_under_lease() -> None:
    assert Window(100).room(0) >= FIRST_BATCHES * 100


def test_there_is_no_room_until_half_of_it_is_finished() -> None:
    window = Window(10)
    full = window.size

    assert window.room(full) == 0
    assert window.room(full // 2 + 1) == 0
    assert window.room(full // 2) == full - full // 2


def test_it_doubles_when_the_workers_have_no_more_than_a_quarter_left() -> None:
    window = Window(10)

    assert window.room(window.size // 4) == 2 * FIRST_BATCHES * 10 - FIRST_BATCHES * 10 // 4
    assert window.size == 2 * FIRST_BATCHES * 10


def test_it_stays_as_it_is_when_the_workers_are_busy() -> None:
    window = Window(10)
    window.room(window.size // 4 + 1)

    assert window.size == FIRST_BATCHES * 10


def test_it_shrinks_when_leases_ran_out_and_grows_again() -> None:
    window = Window(10)
    window.leases_ran_out()
    assert window.size == FIRST_BATCHES * 10 // 4

    window.room(0)
    assert window.size == FIRST_BATCHES * 10 // 2


def test_nothing_is_dispatched_when_more_than_the_window_is_under_lease() -> None:
    window = Window(10)

    assert window.room(10 * window.size) == 0


@given(batch_sizes, st.lists(st.integers(0, 200_000) | st.none(), max_size=60))
def test_it_always_has_room_for_a_batch_and_never_for_more_than_its_bound(
    batch_size: int, looks: list[int | None]
) -> None:
    window = Window(batch_size)
    for leased in looks:
        if leased is None:
            window.leases_ran_out()
        else:
            room = window.room(leased)
            assert 0 <= room <= window.size
            assert room == 0 or leased + room == window.size
            assert room > 0 or leased > window.size // 2
        assert batch_size <= window.size <= MOST_BATCHES * batch_size
    assert window.room(0) >= batch_size
