from collections.abc import Callable, Iterator
from itertools import pairwise

from benchmarks.measures.beside import Result, beside, in_turns, repeated
from benchmarks.pace import found, pace
from benchmarks.run import relative
from benchmarks.seeding import copies_in_waves


def measuring(*rates: float, measured: list[float] | None = None) -> Callable[[], Result]:
    coming: Iterator[float] = iter(rates)

    def measure() -> Result:
        rate = next(coming)
        if measured is not None:
            measured.append(rate)
        run: Result = {"events": 1, "seconds": 1, "rate": rate, "pace": 1, "memory": {}}
        return {**run, "statements": [rate]}

    return measure


def test_a_ratio_is_the_median_of_what_was_measured_side_by_side() -> None:
    # The machine was twice as slow in the second pair, and the third one was disturbed.
    result = beside(measuring(100, 50, 100), measuring(80, 40, 10), 3)

    assert result["ratios"] == [0.8, 0.8, 0.1]
    assert result["ratio"] == 0.8
    assert [run["rate"] for run in result["plain"]] == [100, 50, 100]


def test_everybody_has_a_turn_before_anybody_has_the_next() -> None:
    order: list[float] = []

    in_turns({"a": measuring(1, 3, measured=order), "b": measuring(2, 4, measured=order)}, 2)

    assert order == [1, 2, 3, 4]


def test_of_repeated_runs_the_one_in_the_middle_is_reported_and_all_are_kept() -> None:
    result = repeated(measuring(3, 1, 2), 3)

    assert result["rate"] == 2
    assert result["statements"] == [2]
    assert [run["rate"] for run in result["runs"]] == [3, 1, 2]
    assert list(found(result, "pace")) == [1, 1, 1]


def test_the_machine_is_as_fast_as_it_was_at_its_best() -> None:
    speed = relative(
        {"a": {"seconds": 1.0, "paces": [50, 100]}, "b": {"seconds": 2.0, "paces": [200]}}
    )

    assert speed["a"] == {"seconds": 1.0, "of_the_best": [0.25, 0.5]}
    assert speed["b"] == {"seconds": 2.0, "of_the_best": [1.0]}
    assert pace() > 0


def test_half_of_every_wave_is_stored_and_nobody_is_in_it_twice() -> None:
    copies = copies_in_waves(5_000, 1_160)

    assert len(set(copies)) == 1_160
    for wave in (copies[first : first + 58] for first in range(0, 1_160, 58)):
        assert sum(1 <= copy <= 5_000 for copy in wave) == 29
    stored = sorted(copy for copy in copies if copy <= 5_000)
    gaps = {after - before for before, after in pairwise(stored)}
    assert gaps <= {8, 9}


def test_with_nobody_stored_everybody_is_new() -> None:
    assert copies_in_waves(0, 3) == [1, 2, 3]


def test_all_paces_are_found_wherever_they_are() -> None:
    result = {"pace": 1, "rounds": [{"pace": 2}, {"of": {"pace": 3}}]}

    assert set(found(result, "pace")) == {1, 2, 3}
