import pytest

from kratos_sync.domain.json_values import Json, canonical, same, same_as_doubles


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}),
        ([0.0], [-0.0]),
        (10**22, 1e22),
    ],
)
def test_two_spellings_of_a_value_are_the_same(one: Json, other: Json) -> None:
    assert same(one, other)
    assert same_as_doubles(one, other)
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, 1),
        ({"a": False}, {"a": 0}),
        ([1, True], [1, 1]),
        (None, False),
        ({}, []),
        ({"a": None}, {}),
        ([1], [1, 1]),
        ("1", 1),
        (0.1, 0.10000000000000002),
    ],
)
def test_values_that_python_confuses_are_different(one: Json, other: Json) -> None:
    assert not same(one, other)
    assert not same_as_doubles(one, other)
    assert canonical(one) != canonical(other)


def test_neighbours_beyond_2_to_the_53_are_the_same_only_as_doubles() -> None:
    assert not same({"n": 2**53 + 1}, {"n": 2**53})
    assert same_as_doubles({"n": [2**53 + 1]}, {"n": [2**53]})


def test_numbers_too_large_for_a_double_can_be_compared() -> None:
    assert same_as_doubles(10**400, 10**401)
    assert not same_as_doubles(10**400, -(10**400))
    assert not same(10**400, 10**401)
