"""UUIDs made in a shorter way are what the standard library makes."""

import copy
import pickle
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kratos_sync.domain.fields import from_number, from_text

ADA = "e52e75c7-afbb-4316-a4ef-3977a428a2ca"


@given(st.uuids(), st.booleans())
def test_a_uuid_is_read_as_the_standard_library_reads_it(uuid: UUID, in_capitals: bool) -> None:
    read = from_text(str(uuid).upper() if in_capitals else str(uuid))

    assert read is not None
    assert (read, str(read), repr(read)) == (uuid, str(uuid), repr(uuid))
    assert (hash(read), read.is_safe, read.version) == (hash(uuid), uuid.is_safe, uuid.version)
    assert pickle.loads(pickle.dumps(read)) == copy.deepcopy(read) == uuid


@given(st.integers(min_value=0, max_value=2**128 - 1))
def test_a_uuid_is_made_of_a_number(number: int) -> None:
    assert from_number(number) == UUID(int=number)
    assert from_number(number).is_safe == UUID(int=number).is_safe


@pytest.mark.parametrize(
    "text",
    [
        "",
        ADA[:-1],
        f"{ADA}0",
        f"{ADA}\n",
        f" {ADA[1:]}",
        ADA.replace("-", ""),
        ADA.replace("-", "_"),
        f"{{{ADA[1:-1]}}}",
        f"0x{ADA[2:]}",
        f"+{ADA[1:]}",
        f"{ADA[:-3]}_ca",
        f"{ADA[:-2]}  ",
        f"{ADA[:-1]}-",
        f"{ADA[:-2]}--",
        f"{ADA[:-1]}g",
        f"{ADA[:-1]}\u0661",
        f"{ADA[:-1]}\uff11",
        f"{ADA[:-1]}\x00",
        f"{ADA[:-1]}\ud800",
        "e52e75c-7afbb-4316-a4ef-3977a428a2ca",
    ],
)
def test_anything_else_is_no_uuid(text: str) -> None:
    assert from_text(text) is None


@given(st.text("0123456789abcdefABCDEF-_ xg\u0661", min_size=34, max_size=38))
def test_a_text_of_about_that_length_is_read_or_refused_whole(text: str) -> None:
    read = from_text(text)

    assert read is None or str(read) == text.lower()
