"""Numbers of the Admin API: whole ones keep every digit, however they are written."""

import pytest

from kratos_sync.application.json_body import NotJson, decode
from kratos_sync.domain.json_values import same


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("12345678901234567890.0", 12345678901234567890),
        ("1.5e300", 1.5e300),
        ("-1E300", -1e300),
        ("1e22", 1e22),
        ("1e20", 10**20),
        ("1e23", 1e23),
        ("12345678901234567890123.0", 12345678901234567890123),
        ("9007199254740993.0", 2**53 + 1),
        ("9007199254740993.5", 9007199254740994.0),
        ("1E5", 100000.0),
        ("-0.0", -0.0),
        ("0.10", 0.1),
    ],
)
@pytest.mark.parametrize("escaped", [False, True])
def test_whole_numbers_keep_their_digits(written: str, number: float, escaped: bool) -> None:
    body = f'{{"n": {written}, "odd": "{chr(92)}u0000"}}' if escaped else f'{{"n": {written}}}'
    value = decode(body.encode(), exactly=True).value
    assert isinstance(value, dict)
    assert (value["n"], type(value["n"])) == (number, type(number))


def test_a_number_beyond_all_doubles_is_refused() -> None:
    with pytest.raises(NotJson, match="range of doubles"):
        decode(b'{"n": 1e400}', exactly=True)


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        (12345678901234567000, 1.2345678901234567e19, True),
        (10**300, 1e300, True),
        ({"n": [10**23]}, {"n": [1e23]}, True),
        (2**53 + 1, 2**53, False),
        (1, True, False),
        (1.0, True, False),
        (10**400, 1e308, False),
        (0.1, 0.1000001, False),
    ],
)
def test_a_float_is_the_integer_that_is_nearest_to_it(
    one: object, other: object, are_same: bool
) -> None:
    assert same(one, other) is same(other, one) is are_same
