"""Consumers that ask for more time, take too long, or know that trying again is of no use."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from kratos_sync.application.consumer import LONGEST_DELAY, SHORTEST_DELAY, Consumer, RetryLater
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.pipeline.batch import Start
from kratos_sync.application.ports.dead_letters import WORKER_DIED
from kratos_sync.application.ports.unit_of_work import (
    UNWATCHED,
    PendingDelivery,
    TimeLimitExceeded,
    Watch,
)
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.testing.ledger import Delivery, InMemoryLedger
from tests.domain.people import ADA, GRACE, cause
from tests.suites.occurrences import HEDY, MARY, PEOPLE, WEBHOOK, subscribed, updated

OTHERS = (cause(1), cause(3), cause(4))


class Admit(Consumer[KratosIdentityUpdated]):
    """Adds whoever comes; raises what a test sets, after having written, when Grace comes."""

    name = "Admit"
    consumed: ClassVar[list[UUID]] = []
    trouble: ClassVar[BaseException | None] = None

    def __init__(self, identities: KratosIdentities) -> None:
        self._identities = identities

    def consume(self, event: KratosIdentityUpdated) -> None:
        self.consumed.append(event.id)
        who = KratosIdentity.seen(event.identity, at=event.date_occurred, cause=event.id)
        self._identities.add(who)
        if event.identity.id == GRACE and self.trouble is not None:
            raise self.trouble


class OnlyOnceEach(Admit):
    """Has no time for a second event."""

    time_limit = timedelta()


class KnowsBetter(Admit):
    gives_up_on = (LookupError, OSError)


class KeepsGoing(Admit):
    """Means well: no error shall stop it."""

    def consume(self, event: KratosIdentityUpdated) -> None:
        try:
            super().consume(event)
        except Exception:  # noqa: BLE001  # as consumers do
            self.consumed.append(event.id)


class LooksAtGrace:
    """A watch that finds that Grace's event took too long, whatever its consumer made of it."""

    def opened(self, deliveries: Sequence[PendingDelivery]) -> None:
        pass

    def begin(self, delivery: PendingDelivery) -> None:
        self._delivery = delivery

    def end(self) -> None:
        if self._delivery.subject == GRACE:
            raise TimeLimitExceeded("took longer than a watch says")


@pytest.fixture(params=[True, False], ids=["savepoints", "no savepoints"])
def ledger(request: pytest.FixtureRequest) -> InMemoryLedger:
    """With pending deliveries about Ada, Grace, Mary and Hedy; with savepoints, and without."""
    ledger = InMemoryLedger()
    ledger.has_savepoints = request.param
    with subscribed(ledger, KratosIdentityUpdated, Admit):
        for number, who in enumerate(PEOPLE, start=1):
            ledger.publish(updated(number, who), WEBHOOK)
    return ledger


@pytest.fixture(autouse=True)
def nothing_consumed_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Admit, "consumed", [])


def get_into(trouble: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Admit, "trouble", trouble)


def run(
    ledger: InMemoryLedger,
    consumer: type[Admit] = Admit,
    event_ids: Sequence[UUID] = (),
    watch: Watch = UNWATCHED,
) -> None:
    ids = event_ids or ledger.due(Admit.name)
    deliver(Batch(consumer, ids, ledger.unit_of_work(), ledger, watch))


def outcomes(ledger: InMemoryLedger) -> list[tuple[UUID, int, str]]:
    return sorted((each.event_id, each.number, each.outcome) for each in ledger.attempts)


def pending(ledger: InMemoryLedger) -> dict[UUID, Delivery]:
    return {
        event_id: delivery
        for (consumer, event_id), delivery in ledger.deliveries.items()
        if consumer == Admit.name
    }


def graces(outcome: str) -> list[tuple[UUID, int, str]]:
    """Everybody's attempt succeeded, and Grace's came to this."""
    return sorted([(cause(2), 1, outcome), *((each, 1, "succeeded") for each in OTHERS)])


def test_who_asks_for_more_time_is_not_counted_and_runs_later(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into(RetryLater(timedelta(minutes=10)), monkeypatch)

    run(ledger)

    assert outcomes(ledger) == graces("postponed")
    ((event_id, delivery),) = pending(ledger).items()
    assert event_id == cause(2)
    assert (delivery.attempts, delivery.is_dead) == (0, False)
    assert delivery.due_at == ledger.now + timedelta(minutes=10)
    assert {each.id for each in ledger.identities} == {ADA, MARY, HEDY}


class Busy(RetryLater):
    """Has a constructor of its own, which passes nothing to the base."""

    def __init__(self) -> None:
        Exception.__init__(self, "busy")


def test_who_asks_for_more_time_without_saying_how_much_gets_the_shortest_delay(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into(Busy(), monkeypatch)

    run(ledger)

    assert outcomes(ledger) == graces("postponed")
    (delivery,) = pending(ledger).values()
    assert delivery.due_at == ledger.now + SHORTEST_DELAY


class BusyUntil(RetryLater):
    """Sets its delay itself, as a service asked for it."""

    def __init__(self, delay: Any) -> None:
        self.delay = delay


@pytest.mark.parametrize(
    ("asked_for", "granted"),
    [
        (timedelta(), SHORTEST_DELAY),
        (timedelta(days=-3), SHORTEST_DELAY),
        (timedelta(minutes=3), timedelta(minutes=3)),
        (timedelta.max, LONGEST_DELAY),
    ],
)
def test_a_delay_that_a_subclass_sets_has_the_same_bounds(
    ledger: InMemoryLedger,
    monkeypatch: pytest.MonkeyPatch,
    asked_for: timedelta,
    granted: timedelta,
) -> None:
    get_into(BusyUntil(asked_for), monkeypatch)

    run(ledger)

    assert outcomes(ledger) == graces("postponed")
    (delivery,) = pending(ledger).values()
    assert delivery.due_at == ledger.now + granted


@pytest.mark.parametrize("asked_for", [30, 0.5, "1 h", None])
def test_a_delay_that_is_none_is_a_failure_of_its_event_alone(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch, asked_for: object
) -> None:
    get_into(BusyUntil(asked_for), monkeypatch)

    run(ledger)

    assert outcomes(ledger) == graces("failed")


def test_who_asks_for_more_time_alone_is_not_counted_either(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into(RetryLater(timedelta(minutes=10)), monkeypatch)
    for _ in range(Admit.max_attempts + 1):
        run(ledger, event_ids=[cause(2)])
        ledger.now += timedelta(minutes=10)

    assert {each[1:] for each in outcomes(ledger)} == {(1, "postponed")}
    assert ledger.due(Admit.name) == (cause(1), cause(2), cause(3), cause(4))


def test_asking_for_more_time_is_logged_as_such_and_as_no_failure(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into(RetryLater(timedelta(minutes=10)), monkeypatch)

    with capture_logs() as logged:
        run(ledger)

    (line,) = [each for each in logged if each.get("event_id") == str(cause(2))]
    assert (line["event"], line["log_level"]) == ("delivery_postponed", "info")
    assert line["retry_after_seconds"] == 600


@given(st.timedeltas())
def test_more_time_is_from_a_second_to_a_year(delay: timedelta) -> None:
    given = RetryLater(delay).delay

    assert given == min(max(delay, SHORTEST_DELAY), LONGEST_DELAY)


@pytest.mark.parametrize("given", [tuple, list])
@pytest.mark.parametrize("error", [LookupError("who"), KeyError("who"), ConnectionResetError()])
def test_errors_that_a_consumer_gives_up_on_and_their_kinds_are_final(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch, error: Exception, given: type
) -> None:
    monkeypatch.setattr(KnowsBetter, "gives_up_on", given(KnowsBetter.gives_up_on))
    get_into(error, monkeypatch)

    with capture_logs() as logged:
        run(ledger, KnowsBetter)

    assert outcomes(ledger) == graces("gave_up")
    (delivery,) = pending(ledger).values()
    assert (delivery.attempts, delivery.is_dead) == (1, True)
    assert [each["event"] for each in logged].count("delivery_gave_up") == 1


def test_other_errors_are_tried_again(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into(ValueError("not of those"), monkeypatch)

    run(ledger, KnowsBetter)

    assert outcomes(ledger) == graces("failed")


def test_a_batch_out_of_time_begins_no_further_event_and_leaves_the_rest_due(
    ledger: InMemoryLedger,
) -> None:
    run(ledger, OnlyOnceEach)

    assert Admit.consumed == [cause(1)]
    assert outcomes(ledger) == [(cause(1), 1, "succeeded")]
    assert ledger.due(Admit.name) == (cause(2), cause(3), cause(4))
    assert ledger.locked == set()
    assert [delivery.attempts for delivery in pending(ledger).values()] == [0, 0, 0]


def test_waiting_before_the_inbox_is_open_costs_a_batch_none_of_its_time(
    ledger: InMemoryLedger,
) -> None:
    an_hour_ago = Start(datetime.now(UTC), monotonic() - 3600)

    deliver(
        Batch(
            Admit,
            ledger.due(Admit.name),
            ledger.unit_of_work(),
            ledger,
            started=an_hour_ago,
        )
    )

    assert len(ledger.attempts) == 4


def test_an_interrupted_event_alone_fails_and_the_others_run_without_it(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into(TimeLimitExceeded("took too long"), monkeypatch)

    run(ledger)

    assert outcomes(ledger) == graces("failed")
    assert {each.id for each in ledger.identities} == {ADA, MARY, HEDY}
    assert Admit.consumed == [cause(1), cause(2), *OTHERS]
    (delivery,) = pending(ledger).values()
    assert (delivery.attempts, delivery.error_type) == (1, "TimeLimitExceeded")


def test_several_that_are_interrupted_fail_each_by_itself(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoTimeForAnybody(Admit):
        def consume(self, event: KratosIdentityUpdated) -> None:
            raise TimeLimitExceeded("took too long")

    run(ledger, NoTimeForAnybody)

    assert outcomes(ledger) == [(cause(number), 1, "failed") for number in range(1, 5)]


def test_no_consumer_swallows_an_interruption_by_accident(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into(TimeLimitExceeded("took too long"), monkeypatch)

    run(ledger, KeepsGoing)

    assert outcomes(ledger) == graces("failed")


def test_who_swallows_an_interruption_has_taken_too_long_all_the_same(
    ledger: InMemoryLedger,
) -> None:
    run(ledger, watch=LooksAtGrace())

    assert outcomes(ledger) == graces("failed")
    assert {each.id for each in ledger.identities} == {ADA, MARY, HEDY}


def test_who_fails_after_its_time_limit_has_exceeded_it(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into(PermissionError("by a statement's timeout"), monkeypatch)

    run(ledger, OnlyOnceEach, [cause(2), cause(3)])

    assert outcomes(ledger)[0] == (cause(2), 1, "failed")
    delivery = ledger.deliveries[Admit.name, cause(2)]
    assert delivery.error_type == "TimeLimitExceeded"
    assert "by a statement's timeout" in (delivery.last_error or "")
    assert (cause(3), 1, "succeeded") in outcomes(ledger)


@pytest.mark.parametrize("error_type", ["TimeLimitExceeded", WORKER_DIED])
def test_a_quarantined_delivery_runs_alone_and_last(
    ledger: InMemoryLedger, error_type: str
) -> None:
    ledger.deliveries[Admit.name, cause(2)].attempts = 1
    ledger.deliveries[Admit.name, cause(2)].error_type = error_type

    run(ledger)

    assert Admit.consumed == [*OTHERS, cause(2)]
    assert ledger.commits == 2
    assert (cause(2), 2, "succeeded") in outcomes(ledger)


def test_a_quarantined_delivery_that_takes_too_long_again_affects_no_other(
    ledger: InMemoryLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    get_into(TimeLimitExceeded("again"), monkeypatch)
    ledger.deliveries[Admit.name, cause(2)].attempts = 1
    ledger.deliveries[Admit.name, cause(2)].error_type = "TimeLimitExceeded"

    run(ledger)

    assert Admit.consumed == [*OTHERS, cause(2)]
    assert (cause(2), 2, "failed") in outcomes(ledger)
    assert len(ledger.attempts) == 4


def test_a_quarantined_delivery_runs_though_the_others_failed(ledger: InMemoryLedger) -> None:
    ledger.deliveries[Admit.name, cause(2)].attempts = 1
    ledger.deliveries[Admit.name, cause(2)].error_type = WORKER_DIED
    ledger.commit_errors.append(RuntimeError("of the batch"))

    run(ledger)

    assert {each.outcome for each in ledger.attempts} == {"succeeded"}
    assert sorted(Admit.consumed[3:]) == [cause(1), cause(2), cause(3), cause(4)]


def test_once_its_consumer_is_paused_a_batch_begins_no_further_event(
    ledger: InMemoryLedger,
) -> None:
    batch = Batch(Admit, ledger.due(Admit.name), ledger.unit_of_work(), ledger)

    deliver(replace(batch, is_paused=lambda: len(Admit.consumed) == 2))

    assert outcomes(ledger) == [(cause(1), 1, "succeeded"), (cause(2), 1, "succeeded")]
    assert set(ledger.due(Admit.name)) == {cause(3), cause(4)}
