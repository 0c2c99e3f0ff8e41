"""Attempts, backoff and dead letters."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.errors import LONGEST_ERROR, explain
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.pipeline.outcomes import backoff
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.testing.ledger import InMemoryLedger
from tests.application.delivering import deliver_to
from tests.domain.people import ADA, cause
from tests.suites.occurrences import WEBHOOK, subscribed, updated


class LoseHeart(Consumer[KratosIdentityUpdated]):
    """Fails each time."""

    name = "LoseHeart"
    max_attempts = 3
    first_backoff = timedelta(seconds=10)

    def consume(self, event: KratosIdentityUpdated) -> None:
        raise LookupError("no heart left")


@pytest.fixture
def doomed(ledger: InMemoryLedger) -> InMemoryLedger:
    """A ledger with a pending delivery for a consumer that always fails."""
    with subscribed(ledger, KratosIdentityUpdated, LoseHeart):
        ledger.publish(updated(1), WEBHOOK)
    return ledger


@pytest.fixture
def pending(ledger: InMemoryLedger) -> InMemoryLedger:
    """A ledger with a pending delivery about Ada for SyncKratosIdentity."""
    ledger.publish(updated(1), WEBHOOK)
    return ledger


def fail_once(ledger: InMemoryLedger) -> None:
    ledger.now += timedelta(hours=2)
    assert deliver_to(LoseHeart, ledger) == (cause(1),)


def test_a_failed_attempt_is_counted_and_left_with_its_error(doomed: InMemoryLedger) -> None:
    fail_once(doomed)

    (delivery,) = doomed.deliveries.values()
    assert (delivery.attempts, delivery.is_dead) == (1, False)
    assert delivery.last_error is not None
    assert delivery.last_error.startswith("Traceback (most recent call last)")
    assert delivery.last_error.endswith("LookupError: no heart left")


def test_a_failed_delivery_is_not_due_before_its_backoff(doomed: InMemoryLedger) -> None:
    fail_once(doomed)
    (delivery,) = doomed.deliveries.values()

    assert doomed.due(LoseHeart.name) == ()
    assert timedelta(seconds=8) <= delivery.due_at - doomed.now <= timedelta(seconds=10)


def test_after_the_last_attempt_a_dead_letter_stays(doomed: InMemoryLedger) -> None:
    for _ in range(3):
        fail_once(doomed)
    doomed.now += timedelta(days=365)

    (delivery,) = doomed.deliveries.values()
    assert (delivery.is_dead, delivery.attempts) == (True, 3)
    assert delivery.last_error is not None
    assert "no heart left" in delivery.last_error
    assert [(each.number, each.outcome) for each in doomed.attempts] == [
        (1, "failed"),
        (2, "failed"),
        (3, "gave_up"),
    ]
    assert doomed.due(LoseHeart.name) == ()


def test_a_dead_letter_is_not_consumed_by_a_message_that_comes_late(doomed: InMemoryLedger) -> None:
    for _ in range(3):
        fail_once(doomed)

    deliver_to(LoseHeart, doomed, cause(1))

    assert len(doomed.attempts) == 3


def test_a_failing_commit_is_a_failed_attempt(pending: InMemoryLedger) -> None:
    pending.commit_errors.append(RuntimeError("the disk is full"))

    deliver_to(SyncKratosIdentity, pending)

    ((attempt),) = pending.attempts
    assert (attempt.number, attempt.outcome) == (1, "failed")
    assert "the disk is full" in (attempt.error or "")
    assert len(pending.identities) == 0


def test_a_second_attempt_may_succeed(pending: InMemoryLedger) -> None:
    pending.commit_errors.append(RuntimeError("the disk is full"))
    deliver_to(SyncKratosIdentity, pending)
    pending.now += timedelta(seconds=1)

    deliver_to(SyncKratosIdentity, pending)

    assert [(each.number, each.outcome) for each in pending.attempts] == [
        (1, "failed"),
        (2, "succeeded"),
    ]
    assert pending.identities.find(ADA) is not None


def test_a_conflict_is_begun_anew_and_counts_no_attempt(pending: InMemoryLedger) -> None:
    pending.commit_errors.extend([ConcurrencyConflict("one"), ConcurrencyConflict("two")])

    deliver_to(SyncKratosIdentity, pending)

    assert [(each.number, each.outcome) for each in pending.attempts] == [(1, "succeeded")]
    assert [each.version for each in pending.identities] == [1]


def test_a_conflict_is_not_begun_anew_for_ever(pending: InMemoryLedger) -> None:
    pending.commit_errors.extend([ConcurrencyConflict("again")] * 100)

    deliver_to(SyncKratosIdentity, pending)

    assert len(pending.commit_errors) == 95
    assert [(each.number, each.outcome) for each in pending.attempts] == [(1, "failed")]


def test_an_unavailable_ledger_is_raised_and_counts_no_attempt(pending: InMemoryLedger) -> None:
    pending.is_unavailable = True
    with pytest.raises(LedgerUnavailable):
        deliver_to(SyncKratosIdentity, pending)
    pending.is_unavailable = False

    pending.commit_errors.append(LedgerUnavailable("while committing"))
    with pytest.raises(LedgerUnavailable):
        deliver_to(SyncKratosIdentity, pending)

    assert pending.attempts == []
    assert pending.due(SyncKratosIdentity.name) == (cause(1),)


def test_a_failure_that_cannot_be_written_down_is_raised(doomed: InMemoryLedger) -> None:
    class Unreachable:
        def record(self, attempt: object) -> None:
            raise LedgerUnavailable("gone meanwhile")

    with pytest.raises(LedgerUnavailable):
        deliver(Batch(LoseHeart, (cause(1),), doomed.unit_of_work(), Unreachable()))

    assert doomed.due(LoseHeart.name) == (cause(1),)


durations = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=1))


@st.composite
def policies(draw: st.DrawFn) -> type[Consumer[KratosIdentityUpdated]]:
    class Persistent(SyncKratosIdentity):
        max_attempts = draw(st.integers(min_value=1, max_value=1_000_000))
        first_backoff = draw(durations)
        longest_backoff = draw(durations)

    return Persistent


@given(policies(), st.integers(min_value=1, max_value=1_000_000))
def test_a_backoff_doubles_up_to_a_cap_less_a_fifth_at_most(
    consumer: type[Consumer[KratosIdentityUpdated]], attempt: int
) -> None:
    wait = backoff(consumer, attempt)

    if attempt >= consumer.max_attempts:
        assert wait is None
        return
    # Beyond 24 doublings the wait grows no more: by then it is months, whatever the cap.
    whole = min(consumer.first_backoff * 2 ** min(attempt - 1, 24), consumer.longest_backoff)
    assert wait is not None
    assert whole * 0.8 <= wait <= whole


def test_the_default_backoffs_double_from_a_second_to_an_hour() -> None:
    waits = [backoff(SyncKratosIdentity, attempt) for attempt in range(1, 13)]

    whole = [wait and round(wait.total_seconds() / 0.9) for wait in waits]
    assert waits[-1] is None
    for attempt, seconds in enumerate(whole[:-1]):
        assert seconds is not None
        assert 0.85 * 2**attempt <= seconds <= 1.2 * 2**attempt


def test_backoffs_are_jittered() -> None:
    waits = {backoff(SyncKratosIdentity, 8) for _ in range(20)}

    assert len(waits) > 10


def test_the_default_policy_gives_up_within_hours() -> None:
    waits = [backoff(SyncKratosIdentity, attempt) or timedelta() for attempt in range(1, 13)]

    assert timedelta(minutes=20) < sum(waits, timedelta()) < timedelta(hours=6)


@given(st.text(max_size=30_000))
def test_an_error_is_explained_in_a_bounded_size(message: str) -> None:
    explained = explain(ValueError(message))

    assert len(explained) <= LONGEST_ERROR + 100
    assert "ValueError" in explained or len(message) > LONGEST_ERROR // 2


def test_a_long_error_keeps_its_beginning_and_its_end() -> None:
    explained = explain(ValueError("Ada" + 50_000 * "-" + "Grace"))

    assert explained.startswith("ValueError: Ada---")
    assert explained.endswith("---Grace")
    assert "characters cut" in explained


def test_an_error_names_its_cause_too() -> None:
    error = LookupError("cannot dress Ada")
    error.__cause__ = KeyError("shoes")

    explained = explain(error)

    assert "KeyError: 'shoes'" in explained
    assert "LookupError: cannot dress Ada" in explained
