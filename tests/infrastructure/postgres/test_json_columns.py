import json
import math
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from kratos_sync.domain.json_values import Json, same, same_as_doubles
from kratos_sync.infrastructure.postgres.json import dumps, loads, packed, shortened

leaves = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**80) + 1, max_value=10**80 - 1)
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


ZEROS = "0" * 100
LONG_ONES: list[Json] = [
    [1e308, -1.5e307, 1e-308, 5e-324, 1e98, 1e22, -0.0, 10**300, 10**300 + 1, 10**400, 7 * 10**90],
    {ZEROS: ZEROS, 'quoted "1e308\\': f'\\" 1{ZEROS} \\', "n": [1e300, f"{ZEROS}.5, 1{ZEROS}"]},
    ["\x01", "1\x01", {"\x01": 1e308}],
    {"traits": {"balance": 12 * 10**40, "fraction": 1.25e-40}, "text": f"[1{ZEROS}]"},
    ZEROS,
    1e308,
]


@pytest.mark.parametrize("value", LONG_ONES)
def test_what_postgresql_writes_out_is_read_packed(value: Json, engine: Engine) -> None:
    encoded = dumps(value)
    query = text(f"SELECT g::text AS written, {packed('g')} AS packed FROM CAST(:json AS jsonb) g")

    with engine.connect() as connection:
        row = connection.execute(query, {"json": encoded}).one()

    assert ZEROS[:16] not in row.packed
    assert same(loads(row.packed), value)
    assert same(loads(row.packed), json.loads(row.written))
    assert same_as_doubles(json.loads(shortened(row.packed)), value)


@pytest.mark.parametrize("number", ["1e308", "1e-308", "1e98", "-1.5e300"])
def test_a_number_takes_little_more_room_packed_than_it_has_as_a_double(
    number: str, engine: Engine
) -> None:
    encoded = f"[{','.join([number] * 1_000)}]"

    with engine.connect() as connection:
        query = text(f"SELECT {packed('CAST(:json AS jsonb)')}")
        received = connection.execute(query, {"json": encoded}).scalar_one()

    assert len(received) < 45 * 1_000
    assert len(shortened(received)) < 12 * 1_000
    assert dumps(loads(received)) == dumps(json.loads(encoded))


@pytest.mark.parametrize("text", [f"[1{ZEROS}.5]", f"[1{ZEROS * 4}.5]", f"[1{ZEROS}e5, 1e400]"])
def test_an_odd_spelling_is_read_as_the_standard_library_does(text: str) -> None:
    assert same(loads(text), json.loads(text))
