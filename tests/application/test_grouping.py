"""Events of a consumer with a batch size of 1 share a commit, and are undone alone."""

from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar
from uuid import UUID

import pytest

from kratos_sync.application.consumer import Consumer, RetryLater
from kratos_sync.application.grouping import MOST_TOGETHER, EventTimes, message_size
from kratos_sync.application.pipeline import consuming
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict, TimeLimitExceeded
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.testing.ledger import InMemoryLedger
from tests.application.delivering import deliver_to
from tests.domain.people import GRACE, cause
from tests.suites.occurrences import PEOPLE, WEBHOOK, subscribed, updated

OTHERS = [cause(1), cause(3), cause(4)]


class Mail(Consumer[KratosIdentityUpdated]):
    """Has an effect that nothing can undo."""

    name = "Mail"
    batch_size = 1
    sent: ClassVar[list[UUID]] = []
    troubles: ClassVar[list[BaseException]] = []

    def consume(self, event: KratosIdentityUpdated) -> None:
        self.sent.append(event.id)
        if event.identity.id == GRACE and self.troubles:
            raise self.troubles.pop()


class MailAndAdmit(Mail):
    """Writes, too."""

    name = "MailAndAdmit"

    def __init__(self, identities: KratosIdentities) -> None:
        self._identities = identities

    def consume(self, event: KratosIdentityUpdated) -> None:
        who = KratosIdentity.seen(event.identity, at=event.date_occurred, cause=event.id)
        self._identities.add(who)
        super().consume(event)


class SlowMail(Consumer[KratosIdentityUpdated]):
    name = "SlowMail"
    batch_size = 1


class Batched(Consumer[KratosIdentityUpdated]):
    name = "Batched"
    batch_size = 50


class AsyncMail(Consumer[KratosIdentityUpdated]):
    name = "AsyncMail"
    batch_size = 1

    async def consume(self, event: KratosIdentityUpdated) -> None: ...


@pytest.fixture(autouse=True)
def enough_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a commit wait for its events, however slow the machine is."""
    monkeypatch.setattr(consuming, "LONGEST_SECONDS", 3600.0)


@pytest.fixture(params=[Mail, MailAndAdmit])
def mail(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Mail]:
    kind: type[Mail] = request.param
    monkeypatch.setattr(kind, "sent", [])
    monkeypatch.setattr(kind, "troubles", [])
    return kind


def delivered(kind: type[Mail], *, has_savepoints: bool = False) -> InMemoryLedger:
    """A ledger in which the consumer got four events in one message."""
    ledger = InMemoryLedger()
    ledger.has_savepoints = has_savepoints
    with subscribed(ledger, KratosIdentityUpdated, kind):
        for number, who in enumerate(PEOPLE, start=1):
            ledger.publish(updated(number, who), WEBHOOK)
        deliver_to(kind, ledger)
    return ledger


def outcomes(ledger: InMemoryLedger) -> dict[UUID, str]:
    return {each.event_id: each.outcome for each in ledger.attempts}


def test_they_share_one_commit(mail: type[Mail]) -> None:
    ledger = delivered(mail)

    assert ledger.commits == 1
    assert set(outcomes(ledger).values()) == {"succeeded"}


@pytest.mark.parametrize("make", [lambda: ValueError("no"), lambda: SystemExit(3)])
def test_a_failure_repeats_no_other_event(
    mail: type[Mail], make: Callable[[], BaseException]
) -> None:
    mail.troubles.append(make())

    ledger = delivered(mail)

    assert sorted(mail.sent) == sorted([cause(2), *OTHERS])
    assert outcomes(ledger) == {cause(2): "failed", **dict.fromkeys(OTHERS, "succeeded")}


def test_a_postponed_event_repeats_no_other(mail: type[Mail]) -> None:
    mail.troubles.append(RetryLater(timedelta(minutes=1)))

    ledger = delivered(mail)

    assert outcomes(ledger) == {cause(2): "postponed", **dict.fromkeys(OTHERS, "succeeded")}
    assert len(mail.sent) == 4


def test_an_event_that_lost_a_race_runs_again_alone(mail: type[Mail]) -> None:
    mail.troubles.append(ConcurrencyConflict("another was first"))

    ledger = delivered(mail)

    assert mail.sent == [cause(1), cause(2), cause(3), cause(4), cause(2)]
    assert set(outcomes(ledger).values()) == {"succeeded"}


def test_an_interruption_repeats_no_other_event_of_a_consumer_that_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Mail, "sent", [])
    monkeypatch.setattr(Mail, "troubles", [TimeLimitExceeded("too slow")])

    ledger = delivered(Mail)

    assert len(Mail.sent) == 4
    assert outcomes(ledger) == {cause(2): "failed", **dict.fromkeys(OTHERS, "succeeded")}


def test_an_interruption_in_the_middle_of_what_was_written_rolls_everything_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(MailAndAdmit, "sent", [])
    monkeypatch.setattr(MailAndAdmit, "troubles", [TimeLimitExceeded("too slow")])

    ledger = delivered(MailAndAdmit)

    assert MailAndAdmit.sent == [cause(1), cause(2), *OTHERS]
    assert outcomes(ledger) == {cause(2): "failed", **dict.fromkeys(OTHERS, "succeeded")}


def test_no_event_begins_after_a_tenth_of_a_second(
    mail: type[Mail], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consuming, "LONGEST_SECONDS", -1.0)

    ledger = delivered(mail)

    assert outcomes(ledger) == {cause(1): "succeeded"}
    assert len(ledger.due(mail.name)) == 3


def test_a_message_has_one_event_until_it_is_known_that_they_are_quick() -> None:
    times = EventTimes()
    assert times.fitting(Mail) == 1

    times.note(Mail, events=1, seconds=0.02)
    assert times.fitting(Mail) == 5

    times.note(Mail, events=5, seconds=0.001)
    assert times.fitting(Mail) == 6, "a slow event counts less and less"

    for _ in range(20):
        times.note(Mail, events=5, seconds=0.001)
    assert times.fitting(Mail) == MOST_TOGETHER


def test_only_the_events_that_were_consumed_count() -> None:
    times = EventTimes()
    times.note(Mail, events=0, seconds=0)
    assert times.fitting(Mail) == 1

    times.note(Mail, events=3, seconds=0.09)
    assert times.fitting(Mail) == 3


def test_after_one_slow_event_the_others_are_sent_alone() -> None:
    times = EventTimes()
    times.note(Mail, events=10, seconds=0.01)
    times.note(Mail, events=10, seconds=20)

    assert times.fitting(Mail) == 1


def test_each_consumer_has_its_own_times() -> None:
    times = EventTimes()
    times.note(Mail, events=10, seconds=0.01)

    assert (times.fitting(Mail), times.fitting(SlowMail)) == (MOST_TOGETHER, 1)


def test_batches_and_async_consumers_are_what_they_say() -> None:
    assert [message_size(each) for each in (Mail, Batched, AsyncMail)] == [MOST_TOGETHER, 50, 1]
    assert [EventTimes().fitting(each) for each in (Batched, AsyncMail)] == [50, 1]
