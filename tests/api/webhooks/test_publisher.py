"""Holding calls while the ledger is away."""

import asyncio
from datetime import timedelta
from threading import Event, Lock
from uuid import uuid4

import pytest

from api.webhooks.publisher import PatientPublisher, TooManyCallsWait
from application.ports.event_bus import LedgerUnavailable, Provenance
from domain.events import DomainEvent, KratosIdentityGone
from tests.api.client import ADA, TEATIME
from tests.fakes.event_bus import RecordingEventBus

FROM_A_WEBHOOK = Provenance("webhook")


class GatedBus(RecordingEventBus):
    """A bus that lets nobody through before it is opened, and counts who is in it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.entered = Event(), Event()
        self.inside = self.most_inside = 0
        self._count = Lock()

    def publish(self, event: DomainEvent, provenance: Provenance) -> bool:
        with self._count:
            self.inside += 1
            self.most_inside = max(self.inside, self.most_inside)
        self.entered.set()
        assert self.gate.wait(10)
        with self._count:
            self.inside -= 1
        return super().publish(event, provenance)


def an_event() -> KratosIdentityGone:
    return KratosIdentityGone(uuid4(), TEATIME, ADA)


def publisher(
    bus: RecordingEventBus, *, concurrency: int = 2, max_waiting: int = 2, patience: float = 10
) -> PatientPublisher:
    return PatientPublisher(
        bus,
        concurrency=concurrency,
        max_waiting=max_waiting,
        patience=timedelta(seconds=patience),
        pause=timedelta(0),
    )


def test_a_call_waits_until_the_ledger_is_back() -> None:
    bus = RecordingEventBus()
    bus.be_unavailable(times=3)
    assert asyncio.run(publisher(bus).publish(an_event(), FROM_A_WEBHOOK)) is True
    assert (bus.attempts, len(bus.events)) == (4, 1)


def test_a_call_gives_up_when_its_patience_ends() -> None:
    bus = RecordingEventBus()
    bus.be_unavailable()
    with pytest.raises(LedgerUnavailable):
        asyncio.run(publisher(bus, patience=0.005).publish(an_event(), FROM_A_WEBHOOK))
    assert bus.events == []


def test_an_attempt_under_way_when_patience_ends_still_counts() -> None:
    bus = GatedBus()

    async def scenario() -> bool:
        call = asyncio.create_task(
            publisher(bus, patience=0.005).publish(an_event(), FROM_A_WEBHOOK)
        )
        await asyncio.to_thread(bus.entered.wait)
        asyncio.get_running_loop().call_later(0.02, bus.gate.set)
        return await call

    assert asyncio.run(scenario()) is True
    assert len(bus.events) == 1


def test_no_more_calls_are_held_than_allowed_and_the_ledger_sees_fewer() -> None:
    bus = GatedBus()
    held = publisher(bus, concurrency=2, max_waiting=2)

    async def scenario() -> list[bool | BaseException]:
        calls = [asyncio.create_task(held.publish(an_event(), FROM_A_WEBHOOK)) for _ in range(6)]
        await asyncio.to_thread(bus.entered.wait)
        bus.gate.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [*answers, await held.publish(an_event(), FROM_A_WEBHOOK)]

    answers = asyncio.run(scenario())
    assert [type(answer) for answer in answers] == [bool] * 4 + [TooManyCallsWait] * 2 + [bool]
    assert bus.most_inside <= 2
    assert len(bus.events) == 5


def test_a_call_that_never_gets_its_turn_gives_up() -> None:
    bus = GatedBus()
    busy = publisher(bus, concurrency=1, patience=0.01)

    async def scenario() -> list[bool | BaseException]:
        first = asyncio.create_task(busy.publish(an_event(), FROM_A_WEBHOOK))
        await asyncio.to_thread(bus.entered.wait)
        (second,) = await asyncio.gather(
            busy.publish(an_event(), FROM_A_WEBHOOK), return_exceptions=True
        )
        bus.gate.set()
        return [await first, second]

    first, second = asyncio.run(scenario())
    assert first is True
    assert isinstance(second, TooManyCallsWait)


def test_any_other_error_is_raised_at_once() -> None:
    class BrokenBus(RecordingEventBus):
        def publish(self, event: DomainEvent, provenance: Provenance) -> bool:
            self.attempts += 1
            raise ZeroDivisionError

    bus = BrokenBus()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(publisher(bus).publish(an_event(), FROM_A_WEBHOOK))
    assert bus.attempts == 1
