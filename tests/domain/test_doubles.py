import pytest

from kratos_sync.domain.json_values import Json
from kratos_sync.domain.large_integers import LONGEST_PLACE, large_integers, restored, rounded

LOYAL = 2**53 + 1


def test_large_integers_are_found_wherever_they_stand() -> None:
    value: Json = {"cards": [{"number": LOYAL}, 7], "a/b~c": -LOYAL, "small": 2**53 - 1}

    assert large_integers(value, "/traits") == {
        "/traits/cards/0/number": LOYAL,
        "/traits/a~1b~0c": -LOYAL,
    }


LONG = "k" * 100_000
NESTED: Json = {"k" * 60: {"k" * 60: [{"n": LOYAL}, [LOYAL + 2]]}}


@pytest.mark.parametrize("exact", [{LONG: [LOYAL] * 1000}, {LONG: {LONG: LOYAL}}, NESTED])
def test_a_register_is_no_larger_for_the_length_of_the_keys_and_restores_all(exact: Json) -> None:
    said = rounded(exact)
    register = large_integers(exact, "/traits")

    assert max(map(len, register)) <= LONGEST_PLACE
    assert said != exact == restored(said, "/traits", register)


@pytest.mark.parametrize("value", [True, 1, 1.5, 1e300, "9007199254740993", None, {}, []])
def test_nothing_else_is_a_large_integer(value: Json) -> None:
    assert large_integers(value, "/traits") == {}


def test_a_rounded_number_comes_back_where_the_register_knows_it() -> None:
    said: Json = {"number": 2**53, "other": 2**53}

    assert restored(said, "/traits", {"/traits/number": LOYAL}) == {"number": LOYAL, "other": 2**53}


def test_a_double_written_with_an_exponent_comes_back_too() -> None:
    number = 10**17 + 1

    assert restored([1e17], "", {"/0": number}) == [number]


def test_a_number_that_has_changed_since_stays_as_it_is() -> None:
    assert restored({"number": 2**54}, "/traits", {"/traits/number": LOYAL}) == {"number": 2**54}


def test_a_value_without_large_numbers_is_handed_back_as_it_is() -> None:
    value: Json = {"name": {"first": "Ada"}, "pages": [1, 2.5, True]}

    assert restored(value, "/traits", {"/traits/name": LOYAL}) is value


@pytest.mark.parametrize("huge", [10**400, -(10**400), float("inf")])
def test_numbers_beyond_the_largest_double_are_not_rounded(huge: Json) -> None:
    assert rounded(huge) == huge


def test_rounding_is_what_a_webhook_does() -> None:
    assert rounded({"n": 907600154270447233, "yes": True}) == {"n": 907600154270447232, "yes": True}


@pytest.mark.parametrize(
    ("said", "cut"),
    [
        (1e308, 1e308),
        (10**308, 1e308),
        (1e21, 1e21),
        (1e20, 10**20),
        (12345678901234567890123, 1.2345678901234568e22),
        (-(7 * 10**30), -7e30),
    ],
)
def test_a_double_of_many_digits_stays_one(said: Json, cut: Json) -> None:
    assert repr(rounded([said])) == repr([cut])
