"""A failing event never holds the others of its batch."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import pytest

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline.outcomes import CONFLICTS_IN_A_ROW
from kratos_sync.application.ports.dead_letters import FailedAttempt
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict, PendingDelivery
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.testing.ledger import Attempt, InMemoryLedger
from kratos_sync.testing.unit_of_work import InMemoryUnitOfWork
from tests.application.delivering import deliver_to
from tests.domain.people import ADA, GRACE, cause
from tests.suites.occurrences import HEDY, MARY, PEOPLE, WEBHOOK, subscribed, updated


class AdmitAllButGrace(Consumer[KratosIdentityUpdated]):
    """Adds whoever comes, and fails on Grace after having written."""

    name = "AdmitAllButGrace"

    def __init__(self, identities: KratosIdentities) -> None:
        self._identities = identities

    def consume(self, event: KratosIdentityUpdated) -> None:
        who = KratosIdentity.seen(event.identity, at=event.date_occurred, cause=event.id)
        self._identities.add(who)
        if event.identity.id == GRACE:
            raise PermissionError("not Grace")


@pytest.fixture(params=[True, False], ids=["taken back", "rolled back"])
def ledger(request: pytest.FixtureRequest) -> InMemoryLedger:
    """A ledger where what a consumer did can be taken back, and one where it cannot."""
    ledger = InMemoryLedger()
    ledger.has_savepoints = request.param
    return ledger


def publish_all(ledger: InMemoryLedger) -> None:
    with subscribed(ledger, KratosIdentityUpdated, AdmitAllButGrace):
        for number, who in enumerate(PEOPLE, start=1):
            ledger.publish(updated(number, who), WEBHOOK)


def test_the_others_of_a_batch_succeed(ledger: InMemoryLedger) -> None:
    publish_all(ledger)

    deliver_to(AdmitAllButGrace, ledger)

    assert {each.id for each in ledger.identities} == {ADA, MARY, HEDY}


def test_the_failing_event_alone_gets_an_attempt_and_a_backoff(ledger: InMemoryLedger) -> None:
    publish_all(ledger)

    deliver_to(AdmitAllButGrace, ledger)

    left = {key: each for key, each in ledger.deliveries.items() if key[0] == AdmitAllButGrace.name}
    assert list(left) == [("AdmitAllButGrace", cause(2))]
    (delivery,) = left.values()
    assert (delivery.attempts, delivery.is_dead) == (1, False)
    assert delivery.due_at > ledger.now
    assert sorted((each.event_id, each.number, each.outcome) for each in ledger.attempts) == [
        (cause(1), 1, "succeeded"),
        (cause(2), 1, "failed"),
        (cause(3), 1, "succeeded"),
        (cause(4), 1, "succeeded"),
    ]


def test_what_can_be_taken_back_costs_the_others_no_second_run(ledger: InMemoryLedger) -> None:
    publish_all(ledger)

    deliver_to(AdmitAllButGrace, ledger)

    # By halves: Ada, Grace (whose failure is no commit of the batch's), Mary and Hedy.
    assert ledger.commits == (1 if ledger.has_savepoints else 2)


def test_what_the_failing_event_raised_is_recorded_nowhere(ledger: InMemoryLedger) -> None:
    publish_all(ledger)

    deliver_to(AdmitAllButGrace, ledger)

    about = [
        event.subject for event in ledger.events.values() if event.name.startswith("identity.")
    ]
    assert sorted(about) == sorted([ADA, MARY, HEDY])


def test_a_batch_of_one_is_tried_once(ledger: InMemoryLedger) -> None:
    publish_all(ledger)

    deliver_to(AdmitAllButGrace, ledger, cause(2))

    assert [each.outcome for each in ledger.attempts] == ["failed"]
    assert ledger.commits == 0


def test_a_failing_commit_of_a_batch_is_isolated_too(ledger: InMemoryLedger) -> None:
    publish_all(ledger)
    ledger.commit_errors.extend([RuntimeError("of the batch"), RuntimeError("of the first alone")])

    deliver_to(AdmitAllButGrace, ledger, cause(1), cause(3))

    assert {each.id for each in ledger.identities} == {MARY}
    assert [(each.event_id, each.outcome) for each in ledger.attempts] == [
        (cause(1), "failed"),
        (cause(3), "succeeded"),
    ]


def test_a_batch_that_loses_every_race_goes_on_by_halves(ledger: InMemoryLedger) -> None:
    publish_all(ledger)
    ledger.commit_errors.extend([ConcurrencyConflict("again")] * 5)

    deliver_to(AdmitAllButGrace, ledger, cause(1), cause(3), cause(4))

    assert {each.outcome for each in ledger.attempts} == {"succeeded"}
    assert ledger.commits == 2


def test_a_ledger_that_goes_away_stops_the_batch_at_once(ledger: InMemoryLedger) -> None:
    publish_all(ledger)
    ledger.commit_errors.append(LedgerUnavailable("gone"))

    with pytest.raises(LedgerUnavailable):
        deliver_to(AdmitAllButGrace, ledger, cause(1), cause(3))

    assert ledger.attempts == []
    assert all(delivery.attempts == 0 for delivery in ledger.deliveries.values())


def test_a_ledger_that_goes_away_amid_the_single_ones_keeps_what_was_done(
    ledger: InMemoryLedger,
) -> None:
    publish_all(ledger)
    ledger.commit_errors.extend([RuntimeError("of the batch")])
    deliver_to(AdmitAllButGrace, ledger, cause(1))
    ledger.commit_errors.extend([RuntimeError("of the batch"), LedgerUnavailable("gone")])

    with pytest.raises(LedgerUnavailable):
        deliver_to(AdmitAllButGrace, ledger, cause(3), cause(4))

    assert ledger.attempts == [
        Attempt(cause(1), "AdmitAllButGrace", 1, "failed", ledger.attempts[0].error)
    ]
    assert ("AdmitAllButGrace", cause(4)) in ledger.deliveries


def test_what_fails_alone_and_is_nobodys_fault_is_raised_at_once(ledger: InMemoryLedger) -> None:
    """An event that this release does not know, and a commit that fails: no consumer has failed."""
    publish_all(ledger)
    ledger.events[cause(1)] = replace(ledger.events[cause(1)], name="identity.knighted")
    ledger.commit_errors.append(OSError("the disk is full"))

    with pytest.raises(OSError, match="disk"):
        deliver_to(AdmitAllButGrace, ledger, cause(1))

    assert (ledger.attempts, ledger.commits) == ([], 0)


def test_a_batch_whose_inbox_does_not_open_is_not_split(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def wait_in_vain(
        _: object, __: str, event_ids: Sequence[UUID], *___: object
    ) -> list[PendingDelivery]:
        tried.append(len(event_ids))
        raise ConcurrencyConflict("the table is locked")

    publish_all(ledger)
    monkeypatch.setattr(InMemoryUnitOfWork, "open", wait_in_vain)

    with pytest.raises(ConcurrencyConflict):
        deliver_to(AdmitAllButGrace, ledger)

    assert tried == [len(PEOPLE)] * CONFLICTS_IN_A_ROW
    assert ledger.attempts == []


def test_a_failure_that_cannot_be_recorded_keeps_no_other_event_from_running(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object, __: FailedAttempt) -> None:
        raise PermissionError("no grant")

    ledger.has_savepoints = False
    publish_all(ledger)
    monkeypatch.setattr(InMemoryLedger, "record", refuse)

    with pytest.raises(PermissionError, match="no grant"):
        deliver_to(AdmitAllButGrace, ledger)

    assert {each.id for each in ledger.identities} == {ADA, MARY, HEDY}


def test_a_consumer_whose_own_ledger_is_away_has_failed(ledger: InMemoryLedger) -> None:
    class WriteElsewhere(AdmitAllButGrace):
        name = "WriteElsewhere"

        def consume(self, event: KratosIdentityUpdated) -> None:
            super().consume(event)
            if event.identity.id == HEDY:
                raise LedgerUnavailable("that of another deployment")

    with subscribed(ledger, KratosIdentityUpdated, WriteElsewhere):
        for number, who in enumerate(PEOPLE, start=1):
            ledger.publish(updated(number, who), WEBHOOK)

    deliver_to(WriteElsewhere, ledger)

    assert {each.id for each in ledger.identities} == {ADA, MARY}
    failed = {each.event_id for each in ledger.attempts if each.outcome == "failed"}
    assert failed == {cause(2), cause(4)}


class Resign(AdmitAllButGrace):
    """Asks the process to end when Grace comes."""

    name = "Resign"

    def consume(self, event: KratosIdentityUpdated) -> None:
        if event.identity.id == GRACE:
            raise SystemExit(3)
        super().consume(event)


def test_a_consumer_that_asks_to_exit_has_failed(ledger: InMemoryLedger) -> None:
    with subscribed(ledger, KratosIdentityUpdated, Resign):
        ledger.publish(updated(1, ADA), WEBHOOK)
        ledger.publish(updated(2, GRACE), WEBHOOK)

    deliver_to(Resign, ledger)

    assert sorted((each.event_id, each.outcome) for each in ledger.attempts) == [
        (cause(1), "succeeded"),
        (cause(2), "failed"),
    ]


def test_an_error_quotes_nobody_but_its_own_person(ledger: InMemoryLedger) -> None:
    class Gossip(AdmitAllButGrace):
        def consume(self, event: KratosIdentityUpdated) -> None:
            raise ValueError(f"about {event.identity.id}")

    publish_all(ledger)
    deliver_to(Gossip, ledger)

    assert [str(each.error).count("about") for each in ledger.attempts] == [2] * len(PEOPLE)
