import json
import math
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kratos_sync.domain.json_values import Json, same
from kratos_sync.infrastructure.postgres.json import dumps, loads

leaves = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**99), max_value=10**99)
    | st.integers(min_value=10**309, max_value=10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values: st.SearchStrategy[Json] = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(values)
@example([1.7976931348623157e308, -1.7976931348623157e308, 5e-324, None, -0.0])
@example({"n": 2**64, "null": None, "none": "null"})
@example(["\ud800", None])
def test_every_value_comes_back_as_it_was(value: Json) -> None:
    encoded = dumps(value)

    assert repr(loads(encoded)) == repr(json.loads(encoded)) == repr(value)
    assert same(loads(json.dumps(value)), value)


@given(st.floats(min_value=1e100, max_value=1.7976931348623157e308), st.sampled_from([1, -1]))
def test_a_double_that_the_database_wrote_out_is_that_double_again(size: float, sign: int) -> None:
    written_out = f"{Decimal(repr(sign * size)):f}"

    assert repr(loads(f'{{"numbers":[{written_out}]}}')) == repr({"numbers": [sign * size]})


def test_an_integer_of_many_digits_that_no_double_says_keeps_each_of_them() -> None:
    number = 10**200 + 10**90

    assert loads(f"[{number}]") == [number]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -math.nan])
@pytest.mark.parametrize("large", [0, 2**64, -(2**70)])
def test_what_is_not_finite_is_refused_wherever_it_stands(number: float, large: int) -> None:
    for value in (
        number,
        [number],
        {"traits": {"n": [None, number]}, "large": large, "text": "null"},
        [large, {"n": number}],
    ):
        with pytest.raises(ValueError, match="JSON compliant"):
            dumps(value)


@pytest.mark.parametrize(
    "encoded",
    [
        "[1e400]",
        '["\\ud800"]',
        "[NaN, -Infinity]",
        "[123456789012345678901234567890, 9007199254740993, -0, 1.0, 1E5]",
        '{"a": 1, "a": 2}',
        ' "\\u0000\\ud83d\\ude00" ',
    ],
)
def test_whatever_a_json_column_may_hold_is_read(encoded: str) -> None:
    assert repr(loads(encoded)) == repr(loads(encoded.encode())) == repr(json.loads(encoded))


@pytest.mark.parametrize("encoded", ["", "{", "[1,]", "nul", "1 2"])
def test_what_is_no_json_is_refused(encoded: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(encoded)


def test_text_is_encoded_compactly_and_not_escaped() -> None:
    assert dumps({"name": ["Ágnes", None, True]}) == '{"name":["Ágnes",null,true]}'
