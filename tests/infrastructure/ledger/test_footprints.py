"""How large a delivery is stands in the ledger: batches are bounded by it, large ones set apart."""

import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import cast

import pytest
from sqlalchemy import Engine

from kratos_sync.application.consumers.delete_kratos_identity import DeleteKratosIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.footprint import BATCH_BYTES, SMALL_BYTES, OpenBatches, footprint_of
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.json_values import Json
from kratos_sync.infrastructure.identities.recorded_webhooks import PostgresRecordedWebhooks
from kratos_sync.infrastructure.ledger.claims import LEASED_BYTES, Claim, Claimed, PostgresClaims
from kratos_sync.infrastructure.postgres.transaction import Transaction
from tests.domain.people import ADA, cause, minutes
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, gone, person, updated

SYNC, DELETE = SyncKratosIdentity.name, DeleteKratosIdentity.name
LARGE: Json = {"list": [{"a": 0}] * 10_000}
SMALL: Json = {"name": "Ada"}


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


@pytest.fixture
def claims(engine: Engine) -> PostgresClaims:
    return PostgresClaims(engine, timedelta(seconds=30))


def publish(ledger: PostgresLedger, traits: Json, *numbers: int) -> None:
    for number in numbers:
        ledger.publish(updated(number, person(number), traits=traits), WEBHOOK)


def run(ledger: PostgresLedger, *numbers: int) -> list[int]:
    """Deliver these in one message; give which were settled."""
    ids = [cause(number) for number in numbers]
    before = len(ledger.attempts)
    deliver(Batch(SyncKratosIdentity, ids, ledger.unit_of_work(), ledger))
    settled = [each.event_id for each in ledger.attempts[before:]]
    return [number for number in numbers if cause(number) in settled]


def footprints(ledger: PostgresLedger, table: str, key: str) -> dict[object, int | None]:
    rows = ledger.query(f"SELECT {key} AS key, footprint FROM kratos_sync.{table}")
    return {row["key"]: row["footprint"] for row in rows}


def test_an_event_and_its_deliveries_are_recorded_with_their_footprint(
    ledger: PostgresLedger,
) -> None:
    publish(ledger, LARGE, 1)
    publish(ledger, SMALL, 2)

    expected = {event.id: footprint_of(event.payload.encode()) for event in ledger.events.values()}
    assert footprints(ledger, "events", "id") == expected
    assert footprints(ledger, "deliveries", "event_id") == expected
    assert expected[cause(2)] < SMALL_BYTES < expected[cause(1)]


def test_a_batch_opens_what_fits_and_gives_the_rest_back_at_once(ledger: PostgresLedger) -> None:
    numbers = range(1, 11)
    publish(ledger, LARGE, *numbers)
    fits = BATCH_BYTES // (footprints(ledger, "events", "id")[cause(1)] or 1)

    pieces = []
    while left := [number for number in numbers if (SYNC, cause(number)) in ledger.deliveries]:
        pieces.append(run(ledger, *left))

    assert list(map(len, pieces[:-1])) == [fits] * (len(pieces) - 1)
    assert 1 < fits < 10
    assert len(ledger.query("SELECT FROM kratos_sync.kratos_identities")) == 10


@pytest.mark.parametrize(
    "statement", ["", "UPDATE kratos_sync.kratos_identities SET footprint = NULL"]
)
def test_what_is_held_counts_too_and_the_ledger_learns_of_it(
    ledger: PostgresLedger, claims: PostgresClaims, statement: str
) -> None:
    publish(ledger, {"list": [{"a": 0}] * 20_000}, 1, 2, 3)
    for number in (1, 2, 3):
        run(ledger, number)
    if statement:
        ledger.query(statement)
    for number in (1, 2, 3):
        ledger.publish(gone(10 + number, person(number)), WEBHOOK)
    ids = claims.claim(DELETE, 10).event_ids
    assert len(ids) == 3

    deliver(Batch(DeleteKratosIdentity, ids, ledger.unit_of_work(), ledger))

    left = {
        key: size
        for key, size in footprints(ledger, "deliveries", "event_id").items()
        if key in ids
    }
    assert len(left) == 2
    assert all(size and size > BATCH_BYTES / 3 for size in left.values())
    assert len(claims.claim(DELETE, 10).event_ids) == 2


def test_a_row_that_postgresql_writes_at_length_is_as_large_as_what_it_writes(
    ledger: PostgresLedger,
) -> None:
    publish(ledger, {"list": [1e308] * 1_000}, 1)
    run(ledger, 1)

    (row,) = ledger.query("SELECT length(traits::text) AS n FROM kratos_sync.kratos_identities")
    (size,) = footprints(ledger, "kratos_identities", "id").values()
    assert row["n"] > 309_000
    assert size
    assert size > row["n"]


COUNT = 2_000
NUMBERS: dict[str, Callable[[int], Json]] = {
    "the largest": lambda n: [1e308] * n,
    "tiny ones": lambda n: [1e-308 * (1 + each % 9) for each in range(n)],
    "middling ones": lambda n: [9e98] * n,
    "fractions": lambda n: [1.5e300 + each * 1e290 for each in range(n)],
    "long integers": lambda n: [10**300 // 7 + each for each in range(n // 60)],
    "in lists of lists": lambda n: [[[1e300], [-1e-300]]] * (n // 4),
    "of many keys": lambda n: {f"{each:x}": 1e307 for each in range(n // 2)},
}


@pytest.mark.parametrize(
    ("numbers", "field"),
    [
        *((numbers, "traits") for numbers in NUMBERS.values()),
        (NUMBERS["the largest"], "metadata_public"),
        (NUMBERS["the largest"], "from_next_year"),
    ],
    ids=[*NUMBERS, "in the public metadata", "in a field of next year"],
)
def test_numbers_that_postgresql_writes_at_length_take_no_more_than_their_footprint(
    ledger: PostgresLedger, numbers: Callable[[int], Json], field: str
) -> None:
    value = numbers(COUNT)
    for number, name in enumerate(("Ada", "Grace", "Ada"), start=1):
        fields: dict[str, Json] = {"traits": {"name": name}}
        if field == "traits":
            fields["traits"] = {"name": name, "numbers": value}
        else:
            fields[field] = {"name": name, "numbers": value}
        ledger.publish(updated(number, minute=number, **fields), WEBHOOK)
    run(ledger, 1)
    (held,) = footprints(ledger, "kratos_identities", "id").values()
    event = footprints(ledger, "events", "id")[cause(2)]
    run(ledger, 2)

    tracemalloc.start()
    settled = run(ledger, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert settled == [3]
    assert event
    assert held
    assert peak < event + held
    assert held < 800 * COUNT
    longest = ledger.query("SELECT max(octet_length(payload::text)) AS n FROM kratos_sync.events")
    assert longest[0]["n"] < 50 * COUNT


def test_events_of_an_older_release_are_estimated(ledger: PostgresLedger) -> None:
    publish(ledger, LARGE, 1, 2, 3, 4, 5)
    publish(ledger, SMALL, 6)
    ledger.query("UPDATE kratos_sync.events SET footprint = NULL")
    ledger.query("UPDATE kratos_sync.deliveries SET footprint = NULL")

    first = run(ledger, 1, 2, 3, 4, 5, 6)

    assert 6 in first
    assert 1 < len(first) < 6
    waiting = footprints(ledger, "deliveries", "event_id")
    assert all((waiting[cause(n)] or 0) > SMALL_BYTES for n in range(1, 6) if n not in first)


def test_small_deliveries_pass_large_ones_that_wait(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    publish(ledger, LARGE, *range(1, 13))
    publish(ledger, SMALL, 20)
    size = footprints(ledger, "events", "id")[cause(1)] or 0

    first, second = claims.claim(SYNC, 100), claims.claim(SYNC, 100)
    publish(ledger, SMALL, 21)
    third = claims.claim(SYNC, 100)

    at_once = -(-LEASED_BYTES // size)
    assert set(first.event_ids) == {cause(20), *(cause(n) for n in range(1, at_once + 1))}
    assert (second.event_ids, third.event_ids) == ([], [cause(21)])
    claims.release(SYNC, [cause(1)])
    assert len(claims.claim(SYNC, 100).event_ids) == 1


def test_a_delivery_larger_than_all_may_be_is_leased_alone(
    ledger: PostgresLedger, claims: PostgresClaims
) -> None:
    publish(ledger, SMALL, 1, 2)
    ledger.query(f"UPDATE kratos_sync.deliveries SET footprint = {10 * LEASED_BYTES}")

    assert claims.claim(SYNC, 100).event_ids == [cause(1)]
    assert claims.claim(SYNC, 100).event_ids == []


def claimed(*footprints: int, subject: str = "") -> list[Claimed]:
    return [Claimed(subject or str(n), f"{subject}{n}", size) for n, size in enumerate(footprints)]


def test_a_message_holds_no_more_than_a_batch_may_take() -> None:
    half = BATCH_BYTES // 2
    claim = Claim(claimed(half, half, half + 1, 3 * half, half), 0)

    assert list(claim.batches(200)) == [["0", "1"], ["2"], ["3"], ["4"]]


def test_small_and_large_events_share_no_message() -> None:
    claim = Claim([*claimed(1, 1), *claimed(SMALL_BYTES + 1, SMALL_BYTES + 1, subject="a")], 0)

    assert list(claim.batches(200)) == [["0", "1"], ["a0", "a1"]]


def test_events_of_one_identity_are_cut_where_they_fill_a_batch() -> None:
    third = BATCH_BYTES // 3
    claim = Claim(claimed(third, third, third, third, subject="a"), 0)

    assert list(claim.batches(200)) == [["a0", "a1", "a2"], ["a3"]]
    assert list(Claim(claimed(1, 1, 1, subject="a"), 0).batches(2)) == [["a0", "a1"], ["a2"]]


def test_a_worker_that_may_take_less_opens_less(ledger: PostgresLedger) -> None:
    publish(ledger, SMALL, 1, 2, 3)
    ids = [cause(number) for number in (1, 2, 3)]

    batches = OpenBatches(deaths=9)
    deliver(Batch(SyncKratosIdentity, ids, ledger.unit_of_work(), ledger, open_batches=batches))

    assert len(ledger.attempts) == 1
    assert ledger.query("SELECT FROM kratos_sync.deliveries WHERE leased OR due_at > now()") == []


def test_webhooks_after_an_answer_take_no_more_memory_than_a_batch(ledger: PostgresLedger) -> None:
    ledger.publish(updated(1), Provenance("sync"))
    for number in range(2, 42):
        traits: Json = {"name": f"{number} " + "a" * 500_000}
        ledger.publish(updated(number, traits=traits), WEBHOOK)
    transaction = Transaction(ledger.engine)

    with transaction.begin(timedelta(seconds=30)):
        transaction.event_ids = [cause(1)]
        tracemalloc.start()
        names = [
            str(cast("dict[str, Json]", each.identity.traits)["name"])[:2].strip()
            for each in PostgresRecordedWebhooks(transaction).after(ADA, minutes(1))
        ]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert names == [str(number) for number in range(2, 42)]
    assert peak < BATCH_BYTES
