"""What a message names may be more than there is memory for: it is settled in several batches."""

import pytest

from kratos_sync.application import footprint
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.footprint import BATCH_BYTES, OpenBatches, footprint_of
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.domain.json_values import Json
from kratos_sync.testing.ledger import InMemoryLedger
from tests.application.delivering import deliver_to
from tests.domain.people import cause
from tests.suites.occurrences import WEBHOOK, person, updated

LARGE: Json = {"list": [{"a": 0}] * 10_000}
SYNC = SyncKratosIdentity.name


def publish(ledger: InMemoryLedger, number: int, traits: Json) -> int:
    event = updated(number, person(number), traits=traits)
    ledger.publish(event, WEBHOOK)
    return footprint_of(ledger.events[event.id].payload.encode())


def test_a_message_of_many_large_events_is_settled_in_several_transactions(
    ledger: InMemoryLedger,
) -> None:
    footprints = [publish(ledger, number, LARGE) for number in range(1, 11)]
    assert BATCH_BYTES < sum(footprints) < 4 * BATCH_BYTES

    commits = []
    while due := ledger.due(SYNC):
        deliver_to(SyncKratosIdentity, ledger, *due)
        commits.append(len(due) - len(ledger.due(SYNC)))

    assert sum(commits) == 10
    assert all(0 < count * footprints[0] <= BATCH_BYTES for count in commits)
    assert {each.outcome for each in ledger.attempts} == {"succeeded"}


def test_small_events_do_not_wait_for_large_ones_of_their_message(ledger: InMemoryLedger) -> None:
    for number in range(1, 5):
        publish(ledger, number, {"list": [{"a": 0}] * 40_000})
    publish(ledger, 9, {"name": "Ada"})

    deliver_to(SyncKratosIdentity, ledger)

    assert {each.id for each in ledger.identities} == {person(9)}
    assert ledger.due(SYNC) == tuple(cause(number) for number in range(1, 5))


def test_an_event_larger_than_a_batch_waits_for_another_such(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "WAIT_SECONDS", 0.01)
    publish(ledger, 1, {"list": [{"a": 0}] * 40_000})
    batches = OpenBatches()

    with batches.admission() as other:
        other.choose([footprint.Size(cause(2), person(2), BATCH_BYTES + 1, 0)])
        unit = ledger.unit_of_work()
        deliver(Batch(SyncKratosIdentity, [cause(1)], unit, ledger, open_batches=batches))

    assert (list(ledger.identities), ledger.attempts, ledger.due(SYNC)) == ([], [], ())
    ledger.now += footprint.SET_ASIDE_FOR
    deliver_to(SyncKratosIdentity, ledger)
    assert len(ledger.attempts) == 1


def test_a_large_event_that_fails_fails_alone(ledger: InMemoryLedger) -> None:
    for number in range(1, 5):
        publish(ledger, number, LARGE)
    ledger.commit_errors.extend([RuntimeError("of all"), RuntimeError("of the first half")])

    while due := ledger.due(SYNC):
        deliver_to(SyncKratosIdentity, ledger, *due)

    outcomes = [each.outcome for each in ledger.attempts]
    assert sorted(outcomes) in (
        ["succeeded"] * 4,
        ["failed", "succeeded", "succeeded", "succeeded"],
    )


def test_after_many_deaths_every_event_has_a_transaction_of_its_own(
    ledger: InMemoryLedger,
) -> None:
    for number in range(1, 4):
        publish(ledger, number, {"name": "Ada"})
    batches = OpenBatches(deaths=9)

    while due := ledger.due(SYNC):
        deliver(Batch(SyncKratosIdentity, due, ledger.unit_of_work(), ledger, open_batches=batches))

    assert (ledger.commits, len(ledger.attempts)) == (3, 3)
