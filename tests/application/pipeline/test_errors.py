"""What the ledger keeps of an error: its type, its shape, and a text of bounded size."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kratos_sync.application.errors import (
    LONGEST_ERROR,
    LONGEST_SHAPE,
    LONGEST_TYPE,
    name_of,
    shape_of,
    shorten,
    with_causes,
)
from kratos_sync.application.ports.unit_of_work import TimeLimitExceeded

ID = "e52e75c7-afbb-4316-a4ef-3977a428a2ca"
WORDS = st.text("abcdefghijklmnopqrstuvwxyzäéø ", min_size=1, max_size=40)
NAMES = st.from_regex(r"[A-Za-zÄÖé]+('[A-Za-z]+)?( [A-Z][a-z]+)?", fullmatch=True)
ADDRESSES = st.from_regex(r"[a-z0-9.+_-]{1,20}@[a-z0-9-]{1,20}\.[a-z]{2,5}", fullmatch=True)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def test_each_cause_comes_once_and_a_circle_ends() -> None:
    first, second = LookupError(), KeyError()
    first.__cause__, second.__cause__ = second, first

    assert with_causes(first) == [first, second]


def test_what_a_from_none_hides_is_a_cause_on_demand() -> None:
    shown, hidden = KeyError(), LookupError()
    shown.__context__, shown.__suppress_context__ = hidden, True

    assert with_causes(shown) == [shown]
    assert with_causes(shown, suppressed=True) == [shown, hidden]


@pytest.mark.parametrize(
    ("message", "shape"),
    [
        ("no shoes", "no shoes"),
        ("", ""),
        ("\n\n  no shoes \nfor Ada", "no shoes"),
        ("no 42 for 'Ada'", "no # for '…'"),
        ('no room for "Ada Lovelace", sorry', "no room for '…', sorry"),
        ("no room for 'O'Brien' today", "no room for '…' today"),
        ("can't find 'Ada' today", "can't find '…' today"),
        ("cannot read 'Ada Lovel", "cannot read '…'"),
        ("«Ada» and “Grace” and `Mary`", "'…' and '…' and '…'"),
        ("nobody is ada@example.org", "nobody is …"),
        (f"identity {ID} is gone", "identity # is gone"),
        ("took 3.5 s, -12 °C, 12:30:01", "took # s, # °C, #"),
        ("Key (email)=(ada@example.org) already exists.", "Key … already exists."),
        ("Key (id)=(ada) already exists.", "Key (id)=(…) already exists."),
        ("User ada.lovelace not found", "User … not found"),
        (
            "https://crm.example/people/ada returned 404",
            "https://crm.example/… returned #",
        ),
        ("no customer is named LOVELACE in JSON", "no customer is named … in JSON"),
        ("column created_at is NULL", "column created_at is NULL"),
        ('violates unique constraint "people_pkey"', "violates unique constraint '…'"),
    ],
)
def test_a_shape_is_the_message_without_its_particulars(message: str, shape: str) -> None:
    assert shape_of(ValueError(message)) == shape


def test_errors_of_one_kind_have_one_shape() -> None:
    messages = [f"timeout after {n}.5 s for 'person {n}' at {n}@example.org" for n in range(20)]

    assert len({shape_of(TimeoutError(message)) for message in messages}) == 1


@given(st.text(max_size=5_000))
@example("a" * 5_000)
@example("'" * 5_000)
@example("(" * 5_000)
def test_a_shape_is_one_short_line_without_digits_and_addresses(message: str) -> None:
    shape = shape_of(ValueError(message))

    assert len(shape) <= LONGEST_SHAPE
    assert shape.splitlines() in ([], [shape])
    assert not re.search(r"\d", shape)
    assert not re.search(r"\S@\S", shape)


@given(WORDS, NAMES, st.sampled_from(["''", '""', "``", "“”", "‘’", "«»"]), WORDS)
def test_a_shape_quotes_nobody(before: str, name: str, quotes: str, after: str) -> None:
    secret = f"SECRET {name} SECRET"
    message = f"{before} {quotes[0]}{secret}{quotes[1]} {after}"

    shape = shape_of(ValueError(message))

    assert "SECRET" not in shape
    assert "'…'" in shape


@given(WORDS, ADDRESSES, WORDS)
def test_a_shape_has_no_address(before: str, address: str, after: str) -> None:
    assert "@" not in shape_of(ValueError(f"{before} <{address}>, {after}"))


def test_an_error_without_a_text_has_a_shape_too() -> None:
    assert shape_of(Unspeakable()) == "(no message)"


def test_a_type_is_named_as_in_a_traceback_and_our_own_go_by_their_bare_names() -> None:
    class Nested(Exception):
        pass

    assert name_of(KeyError) == "KeyError"
    assert name_of(TimeLimitExceeded) == "TimeLimitExceeded"
    assert name_of(re.error) == f"re.{re.error.__qualname__}"
    assert name_of(Nested).endswith("test_errors." + Nested.__qualname__)


def test_a_type_with_an_endless_name_is_cut() -> None:
    assert len(name_of(type("A" * 10_000, (Exception,), {}))) == LONGEST_TYPE


@given(st.text(max_size=30_000))
@example("a" * LONGEST_ERROR)
@example("a" * (LONGEST_ERROR + 1))
def test_a_text_that_is_short_enough_stays_and_a_longer_one_loses_its_middle(text: str) -> None:
    short = shorten(text)

    if len(text) <= LONGEST_ERROR:
        assert short == text
        return
    half = LONGEST_ERROR // 2
    assert len(short) < LONGEST_ERROR + 100
    assert (short[:half], short[-half:]) == (text[:half], text[-half:])
    assert f"{len(text) - LONGEST_ERROR} characters cut" in short
