"""Which identities a deployment holds."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kratos_sync.domain.id_range import ALL_IDS, IdRange

IDS = st.uuids(version=4)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("a", "a0000000-0000-0000-0000-000000000000", "afffffff-ffff-ffff-ffff-ffffffffffff"),
        ("0-7", "00000000-0000-0000-0000-000000000000", "7fffffff-ffff-ffff-ffff-ffffffffffff"),
        ("00-3F", "00000000-0000-0000-0000-000000000000", "3fffffff-ffff-ffff-ffff-ffffffffffff"),
        ("8-bf", "80000000-0000-0000-0000-000000000000", "bfffffff-ffff-ffff-ffff-ffffffffffff"),
    ],
)
def test_a_range_begins_and_ends_with_the_given_digits(text: str, first: str, last: str) -> None:
    ids = IdRange.parse(text)

    assert ids == IdRange(UUID(first), UUID(last))
    assert ids.first in ids
    assert ids.last in ids
    assert UUID(int=ids.last.int + 1 & 2**128 - 1) not in ids


@given(IDS)
def test_the_digits_of_an_id_decide(identity_id: UUID) -> None:
    digit = str(identity_id)[0]

    assert identity_id in IdRange.parse(digit)
    assert (identity_id in IdRange.parse("0-7")) == (digit in "01234567")
    assert (identity_id in IdRange.parse("80-ff")) == (digit in "89abcdef")
    assert identity_id in ALL_IDS


@pytest.mark.parametrize(
    ("text", "written"),
    [("0-7", "0-7"), ("A", "a"), ("00-3f", "0-3"), ("0-f", "0-f"), ("08-7f", "08-7f")],
)
def test_a_range_is_written_in_the_fewest_digits(text: str, written: str) -> None:
    assert str(IdRange.parse(text)) == written


@pytest.mark.parametrize("text", ["", "g", "0-", "-7", "0-7-f", "0,7", "123456789", "0 - 7", "٣"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be the first hex digits of ids"):
        IdRange.parse(text)


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ValueError, match="8 comes after 7"):
        IdRange.parse("8-7")
