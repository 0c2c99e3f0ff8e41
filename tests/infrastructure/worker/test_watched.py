"""An interruption strikes between a `begin` and its `end`, once, or not at all."""

import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import pytest

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline.batch import Batch
from kratos_sync.application.pipeline.isolation import _consume_one
from kratos_sync.application.ports.unit_of_work import PendingDelivery, TimeLimitExceeded
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
from kratos_sync.infrastructure.worker.watchdog import Watched
from tests.domain.people import ADA, NOON, cause
from tests.fakes.unit_of_work import InMemoryLedger
from tests.infrastructure.bus.waiting import until
from tests.suites.occurrences import WEBHOOK, subscribed, updated

TIMES = 6_000


class Work(Consumer[KratosIdentityUpdated]):
    """Works for a moment, now and then for a longer one."""

    name = "Work"
    time_limit = timedelta(seconds=1)

    def consume(self, event: KratosIdentityUpdated) -> None:
        sum(range(random.choice((1, 10, 100, 5_000))))


class Spin(Work):
    name = "Spin"

    def consume(self, event: KratosIdentityUpdated) -> None:
        while True:
            pass


class Swallow(Spin):
    """Goes on for a while after it was interrupted."""

    name = "Swallow"
    struck = threading.Event()

    def consume(self, event: KratosIdentityUpdated) -> None:
        with suppress(TimeLimitExceeded):
            super().consume(event)
        self.struck.set()
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            pass


@pytest.fixture
def owed() -> PendingDelivery:
    ledger = InMemoryLedger()
    with subscribed(KratosIdentityUpdated, Work):
        ledger.publish(updated(1), WEBHOOK)
    unit = ledger.unit_of_work()
    with unit.begin(Work.time_limit):
        (owed,) = unit.open(Work.name, [cause(1)])
    return owed


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Consuming:
    """A thread that consumes a delivery so many times, and what it met."""

    def __init__(
        self, consumer: Consumer[KratosIdentityUpdated], owed: PendingDelivery, times: int
    ) -> None:
        self._consumer, self._owed, self._times = consumer, owed, times
        self.hands = InFlightDeliveries()
        self.watched: Watched | None = None
        self.interrupted = 0
        self.outside: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.watch = until(lambda: self.watched)

    def _run(self) -> None:
        ledger = InMemoryLedger()
        unit, kind = ledger.unit_of_work(), type(self._consumer)
        watched = Watched(kind, [cause(1)], unit, self.hands)
        batch = Batch(kind, [cause(1)], unit, ledger, watched)
        self.watched = watched
        try:
            for number in range(self._times):
                # Another object each time: an attempt is told from the next one by identity.
                delivery = self._owed._replace(attempt=number)
                try:
                    _consume_one(batch, self._consumer, delivery)
                except TimeLimitExceeded:
                    self.interrupted += 1
                sum(range(random.choice((0, 1, 100))))
        except BaseException as error:
            self.outside = error
            raise


# One that strikes in a callback of the collector is printed and swallowed there: `end` raises it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_never_strikes_outside_and_each_is_heard_once(
    owed: PendingDelivery, restless: None
) -> None:
    consuming = Consuming(Work(), owed, TIMES)
    interrupted = looks = 0
    while consuming.thread.is_alive():
        delivery = consuming.watch.delivery
        sum(range(random.choice((0, 1, 10, 200))))
        if delivery is not None and random.random() < 0.3:
            looks += 1
            interrupted += consuming.watch.interrupt(delivery)

    assert consuming.outside is None
    assert consuming.interrupted == interrupted
    assert 20 < interrupted < looks
    assert list(consuming.hands) == []


def test_a_thread_that_ends_at_that_very_moment_does_not_keep_the_watchdog_waiting(
    owed: PendingDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interruption strikes while `end` waits for the one who interrupts."""
    from kratos_sync.infrastructure.worker import watchdog as watched

    inside, ended = threading.Event(), threading.Event()
    strike = watched._raise_in

    def strike_late(thread: int, error: type[BaseException] | None) -> None:
        if error is not None:
            inside.set()
            ended.wait(0.3)
        strike(thread, error)

    class WaitForIt(Work):
        name = "WaitForIt"

        def consume(self, event: KratosIdentityUpdated) -> None:
            inside.wait(20)

    monkeypatch.setattr(watched, "_raise_in", strike_late)
    consuming = Consuming(WaitForIt(), owed, 1)
    assert consuming.watch.interrupt(until(lambda: consuming.watch.delivery))
    consuming.thread.join(20)

    assert (consuming.outside, consuming.interrupted) == (None, 1)
    assert not consuming.watch._lock.locked()


def test_who_spins_is_interrupted(owed: PendingDelivery) -> None:
    consuming = Consuming(Spin(), owed, 1)

    assert consuming.watch.interrupt(until(lambda: consuming.watch.delivery))

    consuming.thread.join(20)
    assert not consuming.thread.is_alive()
    assert (consuming.outside, consuming.interrupted) == (None, 1)


def test_who_swallows_an_interruption_is_not_interrupted_again_and_has_overrun(
    owed: PendingDelivery,
) -> None:
    Swallow.struck.clear()
    consuming = Consuming(Swallow(), owed, 1)
    delivery = until(lambda: consuming.watch.delivery)
    assert consuming.watch.interrupt(delivery)
    assert Swallow.struck.wait(20)

    assert not consuming.watch.interrupt(delivery)

    consuming.thread.join(20)
    assert (consuming.outside, consuming.interrupted) == (None, 1)


def test_a_delivery_that_is_done_is_not_interrupted(owed: PendingDelivery) -> None:
    watched = Watched(Work, [cause(1)], InMemoryLedger().unit_of_work(), InFlightDeliveries())
    watched.begin(owed)
    watched.end()
    assert not watched.interrupt(owed)

    another = owed._replace(attempt=2)
    watched.begin(another)
    assert not watched.interrupt(owed)
    watched.end()


def test_what_is_in_hand_is_noted_from_begin_to_end(owed: PendingDelivery) -> None:
    hands = InFlightDeliveries()
    watched = Watched(Work, [cause(1)], InMemoryLedger().unit_of_work(), hands)

    watched.begin(owed)
    (lost,) = hands
    watched.end()

    assert (lost.consumer, lost.event_id, lost.attempt) == (Work.name, cause(1), 1)
    assert list(hands) == []


def test_only_the_delivery_that_is_accounted_for_is_let_go(owed: PendingDelivery) -> None:
    hands = InFlightDeliveries()
    watched = Watched(Work, [cause(1)], InMemoryLedger().unit_of_work(), hands)
    other = PendingDelivery(cause(2), 1, owed.name, ADA, NOON, owed.payload, None)
    watched.begin(owed)
    watched.end()
    watched.begin(other)

    watched.forget(owed)
    assert [lost.event_id for lost in hands] == [cause(2)]

    watched.forget(other)
    assert list(hands) == []


def test_a_delivery_alone_in_its_transaction_is_in_flight_until_that_has_ended(
    owed: PendingDelivery,
) -> None:
    hands = InFlightDeliveries()
    watched = Watched(Work, [cause(1)], InMemoryLedger().unit_of_work(), hands)

    watched.opened([owed])
    loading = [lost.event_id for lost in hands]
    watched.begin(owed)
    watched.end()
    storing = [lost.event_id for lost in hands]
    watched.close()

    assert loading == storing == [owed.event_id]
    assert list(hands) == []


def test_of_a_batch_only_what_is_consumed_is_in_flight(owed: PendingDelivery) -> None:
    hands = InFlightDeliveries()
    watched = Watched(Work, [cause(1)], InMemoryLedger().unit_of_work(), hands)

    watched.opened([owed])
    watched.opened([owed, owed])
    loading = list(hands)
    watched.begin(owed)
    consuming = [lost.event_id for lost in hands]
    watched.end()

    assert (loading, consuming, list(hands)) == ([], [owed.event_id], [])
