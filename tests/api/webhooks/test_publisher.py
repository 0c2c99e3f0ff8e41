"""Holding calls while the ledger is away."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from api.webhooks.publisher import PatientPublisher, TooManyCallsWait
from application.ports.event_bus import LedgerUnavailable, Provenance, Publishable
from domain.events import KratosIdentityGone
from tests.api.client import ADA, TEATIME
from tests.fakes.event_bus import RecordingEventBus

FROM_A_WEBHOOK = Provenance("webhook")


class GatedBus(RecordingEventBus):
    """A bus that lets nobody through before it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def publish(self, event: Publishable, provenance: Provenance) -> bool:
        await self.gate.wait()
        return await super().publish(event, provenance)


def publisher(
    bus: RecordingEventBus, *, max_calls: int = 4, max_bytes: int = 100, patience: float = 10
) -> PatientPublisher:
    return PatientPublisher(
        bus,
        max_calls=max_calls,
        max_bytes=max_bytes,
        patience=timedelta(seconds=patience),
        pause=timedelta(0),
    )


async def publish(through: PatientPublisher, size: int = 1) -> bool:
    event = KratosIdentityGone(uuid4(), TEATIME, ADA)
    return await through.publish(event, FROM_A_WEBHOOK, size)


def test_a_call_waits_until_the_ledger_is_back() -> None:
    bus = RecordingEventBus()
    bus.be_unavailable(times=3)
    assert asyncio.run(publish(publisher(bus))) is True
    assert (bus.attempts, len(bus.events)) == (4, 1)


def test_a_call_gives_up_when_its_patience_ends() -> None:
    bus = RecordingEventBus()
    bus.be_unavailable()
    with pytest.raises(LedgerUnavailable):
        asyncio.run(publish(publisher(bus, patience=0.005)))
    assert bus.events == []


def test_a_call_without_patience_makes_one_attempt() -> None:
    bus = RecordingEventBus()
    bus.be_unavailable()
    with pytest.raises(LedgerUnavailable):
        asyncio.run(publish(publisher(bus, patience=0)))
    assert bus.attempts == 1


def test_an_attempt_under_way_when_patience_ends_still_counts() -> None:
    async def scenario() -> bool:
        bus = GatedBus()
        asyncio.get_running_loop().call_later(0.02, bus.gate.set)
        return await publish(publisher(bus, patience=0.005))

    assert asyncio.run(scenario()) is True


@pytest.mark.parametrize(("max_calls", "max_bytes"), [(4, 100), (100, 4)])
def test_no_more_calls_are_held_than_allowed(max_calls: int, max_bytes: int) -> None:
    async def scenario() -> list[bool | BaseException]:
        bus = GatedBus()
        held = publisher(bus, max_calls=max_calls, max_bytes=max_bytes)
        calls = [asyncio.create_task(publish(held)) for _ in range(6)]
        await asyncio.sleep(0)
        bus.gate.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [*answers, await publish(held)]

    answers = asyncio.run(scenario())
    assert [type(answer) for answer in answers] == [bool] * 4 + [TooManyCallsWait] * 2 + [bool]


def test_any_other_error_is_raised_at_once() -> None:
    class BrokenBus(RecordingEventBus):
        async def publish(self, event: Publishable, provenance: Provenance) -> bool:
            self.attempts += 1
            raise ZeroDivisionError

    bus = BrokenBus()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(publish(publisher(bus)))
    assert bus.attempts == 1
