"""The schedule: all of it from a seed, every kind in it, nothing done to one target twice."""

from collections import Counter
from collections.abc import Sequence

import pytest

from tests.faults.injections import INJECTIONS
from tests.faults.kinds import (
    ALL,
    API,
    CONSUMER,
    DATABASE,
    DELIVERY,
    KINDS,
    kinds_with,
    processes_with,
)
from tests.faults.schedule import TOGETHER, Round, kinds_for, schedule
from tests.faults.sizes import SIZES

SEEDS = range(30)


def test_a_seed_repeats_its_schedule() -> None:
    assert schedule(7, times=7) == schedule(7, times=7)


def test_another_seed_gives_another_schedule() -> None:
    assert schedule(7, times=7) != schedule(8, times=7)


def test_every_kind_can_be_done() -> None:
    assert INJECTIONS.keys() == KINDS.keys()


def test_every_kind_comes_as_often_as_any_other_but_for_the_slow() -> None:
    times = _times(schedule(1, times=7))
    assert times == {name: min(7, kind.most_times) for name, kind in KINDS.items()}


def test_the_full_size_is_at_least_two_hundred_faults_of_fifteen_kinds() -> None:
    times = _times(schedule(1, SIZES["full"].times, kinds_for(SIZES["full"])))
    assert sum(times.values()) >= 200
    assert len(times) >= 15


def test_the_small_size_has_every_kind_but_those_that_take_long() -> None:
    left_out = KINDS.keys() - set(kinds_for(SIZES["small"]))
    assert left_out == {"consumer keeps the interpreter"}


def test_with_a_broker_in_memory_its_faults_are_left_out_and_two_processes_have_all_others() -> (
    None
):
    kinds = kinds_with("memory")
    left_out = KINDS.keys() - kinds.keys()
    assert left_out == {name for name in KINDS if name.startswith("broker")}
    targets = {target for kind in kinds.values() for target in kind.targets}
    assert targets == {ALL, API, DELIVERY, DATABASE, CONSUMER}
    assert kinds["relay killed"].targets == kinds["worker stopped"].targets == (DELIVERY,)
    assert kinds["commit lost"].targets == processes_with("memory") == (API, DELIVERY)
    for faults in schedule(1, 2, kinds):
        targets = {fault.target for fault in faults}
        assert len(targets) == len(faults)
        assert targets == {ALL} or ALL not in targets


def test_with_rabbitmq_all_faults_are_done_in_the_small_size_too() -> None:
    kinds = kinds_for(SIZES["small"], kinds_with("rabbitmq"))
    assert kinds.keys() == kinds_for(SIZES["small"]).keys()
    assert processes_with("rabbitmq") == processes_with("valkey")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_round_does_no_two_faults_to_one_target(seed: int) -> None:
    for faults in schedule(seed, times=2):
        targets = [fault.target for fault in faults]
        assert len(set(targets)) == len(targets) <= TOGETHER


@pytest.mark.parametrize("seed", SEEDS)
def test_what_keeps_others_from_recovering_is_done_alone(seed: int) -> None:
    for faults in schedule(seed, times=2):
        assert len(faults) == 1 or not any(KINDS[fault.kind].alone for fault in faults)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_fault_lasts_as_long_as_its_kind_may(seed: int) -> None:
    for faults in schedule(seed, times=2):
        for fault in faults:
            shortest, longest = KINDS[fault.kind].seconds
            assert shortest <= fault.seconds <= longest
            assert fault.target in KINDS[fault.kind].targets


def test_faults_are_numbered_in_the_order_of_their_rounds() -> None:
    numbers = [fault.number for faults in schedule(3, times=2) for fault in faults]
    assert numbers == list(range(1, len(numbers) + 1))


def test_some_kinds_alone_can_be_had() -> None:
    kinds = {name: KINDS[name] for name in ("relay killed", "broker wiped")}
    times = _times(schedule(1, times=3, kinds=kinds))
    assert times == {"relay killed": 3, "broker wiped": 3}


def _times(rounds: Sequence[Round]) -> Counter[str]:
    return Counter(fault.kind for faults in rounds for fault in faults)
