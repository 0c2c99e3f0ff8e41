"""What deliveries take in memory is known before it is taken, and bounded."""

import json
import tracemalloc

import pytest

from kratos_sync.application import footprint
from kratos_sync.application.footprint import (
    BATCH_BYTES,
    PROCESS_BYTES,
    RECOVERY_SECONDS,
    SMALL_BYTES,
    OpenBatches,
    Size,
    fitting,
    footprint_of,
    footprint_of_stored,
    remaining,
)
from kratos_sync.application.pipeline.batch import read_event
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.json_values import Json
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.infrastructure.postgres.json import dumps
from tests.domain.people import ADA, GRACE, NOON, cause, document

COUNT = 20_000
NESTED = "[" * 40 + "]" * 40
TRAITS: dict[str, Json] = {
    "one long text": "A biography. " * COUNT,
    "one wide text": "\N{GRINNING FACE}" + "A biography. " * COUNT,
    "small objects": [{"a": 0}] * COUNT,
    "empty lists": [[]] * COUNT,
    "lists in lists": [json.loads(NESTED)] * (COUNT // 40),
    "fractions": [1.5] * COUNT,
    "whole numbers": list(range(1000, 1000 + COUNT)),
    "short texts": ["ab"] * COUNT,
    "many keys": {f"{number:x}": number for number in range(COUNT)},
    "objects of many keys": [{f"k{key}": None for key in range(50)}] * (COUNT // 100),
    "nulls and booleans": [None, True] * COUNT,
}


@pytest.mark.parametrize("traits", TRAITS.values(), ids=TRAITS)
@pytest.mark.parametrize("escaped", [True, False])
def test_an_event_takes_no_more_than_its_footprint(traits: Json, escaped: bool) -> None:
    identity = document(traits={"it": traits})
    encoded = json.dumps({"identity": identity}, ensure_ascii=escaped, separators=(",", ":"))
    payload = encoded.encode()

    tracemalloc.start()
    text = payload.decode()
    event = read_event(
        PendingDelivery(cause(), 1, KratosIdentityUpdated.name, ADA, NOON, text, None)
    )
    assert isinstance(event, KratosIdentityUpdated)
    held = KratosIdentity.seen(event.identity, at=NOON, cause=cause())
    facts = [dumps(fact.to_json()).encode() for fact in held.collect_events()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert facts
    assert peak <= footprint_of(payload) + SMALL_BYTES


def test_an_ordinary_event_is_small_and_two_hundred_fit_into_a_batch() -> None:
    size = footprint_of(json.dumps({"identity": document()}).encode())

    assert size < SMALL_BYTES
    assert 2 * 200 * size < BATCH_BYTES


def test_a_number_with_an_exponent_counts_as_the_database_writes_it() -> None:
    encoded = b"[" + b",".join([b"1e308"] * 1000) + b"]"

    assert footprint_of_stored(encoded) > 1000 * 309 > footprint_of(encoded)


def size(number: int, event: int, held: int = 0, subject: object = None) -> Size:
    return Size(cause(number), ADA if subject is None else GRACE, event, held)


def test_what_fits_is_chosen_whole() -> None:
    sizes = [size(1, 60), size(2, 40)]

    assert fitting(sizes, 100) == (sizes, 100)


def test_the_smallest_are_chosen_first_and_at_least_one() -> None:
    large, small, middle = size(1, 90), size(2, 10), size(3, 50)

    assert fitting([large, small, middle], 70) == ([small, middle], 60)
    assert fitting([large], 70) == ([large], 90)
    assert fitting([large, middle], 0) == ([middle], 50)


def test_what_is_held_of_a_person_counts_once() -> None:
    first, second = size(1, 10, held=50), size(2, 10, held=50)
    other = size(3, 10, held=51, subject=GRACE)

    assert fitting([first, second, other], 80) == ([first, second], 70)


def test_batches_together_take_what_a_process_may() -> None:
    assert OpenBatches(threads=4).most == BATCH_BYTES
    assert 32 * OpenBatches(threads=32).most == PROCESS_BYTES
    assert OpenBatches(threads=1).most == BATCH_BYTES


def test_of_events_larger_than_a_batch_one_is_open_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(footprint, "WAIT_SECONDS", 0.01)
    batches = OpenBatches()
    large, small = size(1, BATCH_BYTES + 1), size(2, 1)

    with batches.admission() as first, batches.admission() as second:
        assert first.choose([large]) == {large.event_id}
        assert second.choose([large]) == set()
        assert (second.must_wait, second.left) == (True, {large.event_id: BATCH_BYTES + 1})
    with batches.admission() as third, batches.admission() as fourth:
        assert fourth.choose([large]) == {large.event_id}
        assert third.choose([small, large]) == {small.event_id}
        assert (third.must_wait, third.left) == (False, {large.event_id: BATCH_BYTES + 1})


def test_a_process_whose_predecessors_died_begins_with_less_and_in_the_end_one_by_one() -> None:
    most = [OpenBatches(deaths=deaths).most for deaths in range(6)]

    assert most == sorted(most, reverse=True)
    assert most[0] == BATCH_BYTES > most[1] > most[3] > most[4] == most[5] == 0


def test_a_death_no_longer_counts_when_a_process_has_lived_for_a_quarter_of_a_minute() -> None:
    assert [remaining(9, times * RECOVERY_SECONDS) for times in range(6)] == [4, 3, 2, 1, 0, 0]
    assert remaining(0, 0) == 0
