"""What a message says, and nothing else is taken for one."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kratos_sync.application.application import CONSUMER_NAME
from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.wire_format import (
    MOST_EVENT_IDS,
    Pointer,
    UnreadableMessage,
    read,
    write,
)

FIRST = UUID("0199a3f0-5c1e-7000-8000-000000000001")
SECOND = UUID("0199a3f0-5c1e-7000-8000-000000000002")
# Messages of this form wait in Redis while a release is rolled out: it is not to change in one go.
GOLDEN: dict[str, Any] = {
    "version": 1,
    "consumer": "SyncKratosIdentity",
    "event_ids": [
        "0199a3f0-5c1e-7000-8000-000000000001",
        "0199a3f0-5c1e-7000-8000-000000000002",
    ],
}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def test_a_message_is_written_so() -> None:
    assert write("SyncKratosIdentity", [FIRST, SECOND]) == GOLDEN
    assert wire_format.ACTOR == "deliver"


def test_a_message_written_so_is_read() -> None:
    assert read((), GOLDEN) == Pointer("SyncKratosIdentity", (FIRST, SECOND))


@given(
    st.from_regex(CONSUMER_NAME, fullmatch=True),
    st.lists(st.uuids(), min_size=1, max_size=50, unique=True),
)
def test_what_was_written_is_read(consumer: str, event_ids: list[UUID]) -> None:
    assert read((), write(consumer, event_ids)) == Pointer(consumer, tuple(event_ids))


@pytest.mark.parametrize("name", ["", "ada@example.org", "Ada Lovelace", "a" * 101, "1", "Zoë"])
def test_what_is_no_name_of_a_consumer_is_not_read_and_so_not_logged(name: str) -> None:
    with pytest.raises(UnreadableMessage):
        read((), write(name, [FIRST]))


def test_an_event_named_twice_is_delivered_once() -> None:
    assert read((), write("Any", [SECOND, FIRST, SECOND])).event_ids == (SECOND, FIRST)


def test_a_message_may_name_as_many_events_as_that() -> None:
    most = [UUID(int=number) for number in range(MOST_EVENT_IDS)]

    assert len(read((), write("Any", most)).event_ids) == MOST_EVENT_IDS == 10_000


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"version": 2}, id="a newer version"),
        pytest.param({"version": 0}, id="an older version"),
        pytest.param({"version": "1"}, id="a version in words"),
        pytest.param({"version": None}, id="no version"),
        pytest.param({"version": [1]}, id="a version in a list"),
        pytest.param({"consumer": None}, id="no consumer"),
        pytest.param({"consumer": 7}, id="a consumer that is a number"),
        pytest.param({"consumer": ["SyncKratosIdentity"]}, id="a consumer in a list"),
        pytest.param({"event_ids": []}, id="no events"),
        pytest.param({"event_ids": None}, id="null for events"),
        pytest.param({"event_ids": GOLDEN["event_ids"][0]}, id="an id without its list"),
        pytest.param({"event_ids": {GOLDEN["event_ids"][0]: 1}}, id="ids as keys"),
        pytest.param({"event_ids": [str(UUID(int=n)) for n in range(10_001)]}, id="10,001 events"),
        pytest.param({"event_ids": ["no id"]}, id="an id that is none"),
        pytest.param({"event_ids": [*GOLDEN["event_ids"], None]}, id="null among the ids"),
        pytest.param({"event_ids": [7]}, id="an id that is a number"),
        pytest.param({"event_ids": [GOLDEN["event_ids"]]}, id="ids in a list in a list"),
    ],
)
def test_any_other_message_is_unreadable(change: dict[str, Any]) -> None:
    with pytest.raises(UnreadableMessage):
        read((), {**GOLDEN, **change})


@pytest.mark.parametrize("missing", sorted(GOLDEN))
def test_a_message_without_one_of_its_parts_is_unreadable(missing: str) -> None:
    with pytest.raises(UnreadableMessage):
        read((), {key: value for key, value in GOLDEN.items() if key != missing})


def test_a_message_with_positional_arguments_is_unreadable() -> None:
    with pytest.raises(UnreadableMessage):
        read((1,), GOLDEN)


@given(st.lists(anything, max_size=2), st.dictionaries(st.sampled_from(sorted(GOLDEN)), anything))
def test_whatever_comes_is_read_or_refused(args: list[Any], change: dict[str, Any]) -> None:
    try:
        pointer = read(args, {**GOLDEN, **change})
    except UnreadableMessage:
        return
    assert not args
    assert pointer.consumer == {**GOLDEN, **change}["consumer"]
    assert list(map(UUID, {**GOLDEN, **change}["event_ids"])) == list(pointer.event_ids)
