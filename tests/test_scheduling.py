"""The order and the grouping of tests that several processes run."""

from tests.scheduling import group_of, place_of

FILE = "tests/infrastructure/bus/test_relay.py"


def test_a_files_tests_run_in_one_process() -> None:
    assert group_of(f"{FILE}::test_one") == group_of(f"{FILE}::test_other[valkey]") == FILE


def test_all_tests_with_rabbitmq_run_in_one_process() -> None:
    assert group_of(f"{FILE}::test_one[rabbitmq]") == group_of("tests/a.py::test_a_rabbitmq")


def test_the_longest_begin_first() -> None:
    tests = ["tests/domain/test_a.py::test_a", f"{FILE}::test_b", f"{FILE}::test_b[rabbitmq]"]
    assert sorted(tests, key=place_of) == tests[::-1]
