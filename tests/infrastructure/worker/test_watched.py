"""An interruption strikes between a `begin` and its `end`, once, or not at all."""

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline.batch import Batch
from kratos_sync.application.pipeline.consuming import _consume_one, _watched
from kratos_sync.application.ports.unit_of_work import PendingDelivery, TimeLimitExceeded
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
from kratos_sync.infrastructure.worker.watchdog import Watched
from kratos_sync.testing.ledger import InMemoryLedger
from tests.domain.people import ADA, NOON, cause
from tests.suites.occurrences import WEBHOOK, subscribed, updated
from tests.waiting import DEADLINE_SECONDS, until

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
    struck, seen = threading.Event(), threading.Event()

    def consume(self, event: KratosIdentityUpdated) -> None:
        with suppress(TimeLimitExceeded):
            super().consume(event)
        self.struck.set()
        while not self.seen.is_set():
            pass


@pytest.fixture
def pending() -> PendingDelivery:
    ledger = InMemoryLedger()
    with subscribed(ledger, KratosIdentityUpdated, Work):
        ledger.publish(updated(1), WEBHOOK)
    unit = ledger.unit_of_work()
    with unit.begin(Work.time_limit):
        (pending,) = unit.open(Work.name, [cause(1)])
    return pending


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
        self, consumer: Consumer[KratosIdentityUpdated], pending: PendingDelivery, times: int
    ) -> None:
        self._consumer, self._pending, self._times = consumer, pending, times
        self.in_flight = InFlightDeliveries()
        self.watched: Watched | None = None
        self.interrupted = 0
        self.outside: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.watch = until(lambda: self.watched)

    def _run(self) -> None:
        ledger = InMemoryLedger()
        unit, kind = ledger.unit_of_work(), type(self._consumer)
        watched = Watched(kind, [cause(1)], unit, self.in_flight)
        batch = Batch(kind, [cause(1)], unit, ledger, watched)
        self.watched = watched
        try:
            for number in range(self._times):
                # Another object each time: attempts are distinguished by identity.
                delivery = self._pending._replace(attempt=number)
                try:
                    _watched(batch, delivery, partial(_consume_one, self._consumer, delivery, unit))
                except TimeLimitExceeded:
                    self.interrupted += 1
                sum(range(random.choice((0, 1, 100))))
        except BaseException as error:
            self.outside = error
            raise


# One that strikes in a callback of the collector is printed and swallowed there: `end` raises it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_never_strikes_outside_and_each_is_raised_once(
    pending: PendingDelivery, restless: None
) -> None:
    consuming = Consuming(Work(), pending, TIMES)
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
    assert list(consuming.in_flight) == []


def test_a_thread_that_ends_at_that_very_moment_does_not_keep_the_watchdog_waiting(
    pending: PendingDelivery, monkeypatch: pytest.MonkeyPatch
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
            inside.wait(DEADLINE_SECONDS)

    monkeypatch.setattr(watched, "_raise_in", strike_late)
    consuming = Consuming(WaitForIt(), pending, 1)
    assert consuming.watch.interrupt(until(lambda: consuming.watch.delivery))
    consuming.thread.join(DEADLINE_SECONDS)

    assert (consuming.outside, consuming.interrupted) == (None, 1)
    assert not consuming.watch._lock.locked()


def test_who_spins_is_interrupted(pending: PendingDelivery) -> None:
    consuming = Consuming(Spin(), pending, 1)

    assert consuming.watch.interrupt(until(lambda: consuming.watch.delivery))

    consuming.thread.join(DEADLINE_SECONDS)
    assert not consuming.thread.is_alive()
    assert (consuming.outside, consuming.interrupted) == (None, 1)


def test_who_swallows_an_interruption_is_not_interrupted_again_and_has_overrun(
    pending: PendingDelivery,
) -> None:
    Swallow.struck.clear()
    Swallow.seen.clear()
    consuming = Consuming(Swallow(), pending, 1)
    delivery = until(lambda: consuming.watch.delivery)
    assert consuming.watch.interrupt(delivery)
    assert Swallow.struck.wait(DEADLINE_SECONDS)

    assert not consuming.watch.interrupt(delivery)

    Swallow.seen.set()
    consuming.thread.join(DEADLINE_SECONDS)
    assert (consuming.outside, consuming.interrupted) == (None, 1)


def test_a_delivery_that_is_done_is_not_interrupted(pending: PendingDelivery) -> None:
    watched = Watched(Work, [cause(1)], InMemoryLedger().unit_of_work(), InFlightDeliveries())
    watched.begin(pending)
    watched.end()
    assert not watched.interrupt(pending)

    another = pending._replace(attempt=2)
    watched.begin(another)
    assert not watched.interrupt(pending)
    watched.end()


def test_a_delivery_is_in_flight_from_begin_to_end(pending: PendingDelivery) -> None:
    in_flight = InFlightDeliveries()
    watched = Watched(Work, [cause(1)], InMemoryLedger().unit_of_work(), in_flight)

    watched.begin(pending)
    (lost,) = in_flight
    watched.end()

    assert (lost.consumer, lost.event_id, lost.attempt) == (Work.name, cause(1), 1)
    assert list(in_flight) == []


def test_only_the_delivery_that_is_accounted_for_is_settled(pending: PendingDelivery) -> None:
    in_flight = InFlightDeliveries()
    watched = Watched(Work, [cause(1)], InMemoryLedger().unit_of_work(), in_flight)
    other = PendingDelivery(cause(2), 1, pending.name, ADA, NOON, pending.payload, None)
    watched.begin(pending)
    watched.end()
    watched.begin(other)

    watched.settle(pending)
    assert [lost.event_id for lost in in_flight] == [cause(2)]

    watched.settle(other)
    assert list(in_flight) == []


def test_a_delivery_alone_in_its_transaction_is_in_flight_until_that_has_ended(
    pending: PendingDelivery,
) -> None:
    in_flight = InFlightDeliveries()
    watched = Watched(Work, [cause(1)], InMemoryLedger().unit_of_work(), in_flight)

    watched.opened([pending])
    loading = [lost.event_id for lost in in_flight]
    watched.begin(pending)
    watched.end()
    storing = [lost.event_id for lost in in_flight]
    watched.close()

    assert loading == storing == [pending.event_id]
    assert list(in_flight) == []


def test_of_a_batch_only_what_is_consumed_is_in_flight(pending: PendingDelivery) -> None:
    in_flight = InFlightDeliveries()
    watched = Watched(Work, [cause(1)], InMemoryLedger().unit_of_work(), in_flight)

    watched.opened([pending])
    watched.opened([pending, pending])
    loading = list(in_flight)
    watched.begin(pending)
    consuming = [lost.event_id for lost in in_flight]
    watched.end()

    assert (loading, consuming, list(in_flight)) == ([], [pending.event_id], [])
