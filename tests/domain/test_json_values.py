import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kratos_sync.domain.json_values import Json, canonical, plain, same, same_as_doubles
from kratos_sync.domain.large_integers import rounded


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}),
        ([0.0], [-0.0]),
        (10**22, 1e22),
        (10**23, 1e23),
        ([{"n": 15 * 10**299}], [{"n": 1.5e300}]),
        (-(10**308), -1e308),
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


doubles = st.floats(allow_nan=False, allow_infinity=False)
numbers = (
    st.integers()
    | st.integers(-(10**21) + 1, 10**21 - 1)
    | doubles
    | doubles.map(int)
    | doubles.map(lambda double: double * 2.0**-900)
)
values: st.SearchStrategy[Json] = st.recursive(
    numbers | st.booleans() | st.none() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


def written_out(value: Json, *, as_doubles: bool) -> str:
    """The canonical text with each number written out, as an integer if it is whole."""

    def plainly(item: Json) -> Json:
        if isinstance(item, dict):
            return {key: plainly(each) for key, each in item.items()}
        if isinstance(item, list):
            return list(map(plainly, item))
        is_number = isinstance(item, int | float) and not isinstance(item, bool)
        if as_doubles and is_number and not -(2**53) < item < 2**53:  # type: ignore[operator]  # it is a number
            item = float(item)  # type: ignore[arg-type]  # likewise
        return int(item) if isinstance(item, float) and item.is_integer() else item

    return json.dumps(plainly(value), sort_keys=True, separators=(",", ":"))


@given(values, values)
@example(1e308, 10**308)
@example([1e23], [99999999999999991611392])
@example(2**53 + 1, 2.0**53)
def test_what_webhooks_say_is_the_same_exactly_if_it_was_so_written_out(
    one: Json, other: Json
) -> None:
    were_same = written_out(one, as_doubles=True) == written_out(other, as_doubles=True)

    assert (canonical(rounded(one)) == canonical(rounded(other))) is were_same


@given(values)
def test_below_ten_to_the_21_the_canonical_text_is_the_number_written_out(value: Json) -> None:
    text = written_out(value, as_doubles=False)

    assert canonical(value) == text or any(len(part) > 21 for part in text.split(","))


@pytest.mark.parametrize("value", [1e308, -1e22, 10**308, [1.5e300, {"n": 10**200}]])
def test_no_number_is_longer_in_the_canonical_text_than_a_double(value: Json) -> None:
    assert len(canonical(value)) < 40
    assert len(repr(plain(rounded(value)))) < 40
