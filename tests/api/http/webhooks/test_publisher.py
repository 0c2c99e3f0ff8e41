"""Holding calls while the ledger is away."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest

from kratos_sync.api.http.webhooks import publisher as publisher_module
from kratos_sync.api.http.webhooks.publisher import (
    RetryingPublisher,
    TooManyCallsWait,
    WaitingAborted,
)
from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance, Publishable
from kratos_sync.domain.events import KratosIdentityGone
from tests.api.http.client import ADA, TEATIME
from tests.fakes.event_bus import RecordingEventBus
from tests.waiting import DEADLINE_SECONDS, until_on_loop

FROM_A_WEBHOOK = Provenance("webhook")
LONG = DEADLINE_SECONDS


class GatedBus(RecordingEventBus):
    """A bus that lets nobody through before it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.gate = asyncio.Event()

    async def publish(self, event: Publishable, provenance: Provenance) -> bool:
        self.calls += 1
        await self.gate.wait()
        return await super().publish(event, provenance)


def publisher(
    bus: RecordingEventBus, *, max_calls: int = 4, max_bytes: int = 100, max_wait: float = LONG
) -> RetryingPublisher:
    return RetryingPublisher(
        bus,
        max_calls=max_calls,
        max_bytes=max_bytes,
        max_wait=timedelta(seconds=max_wait),
        pause=timedelta(0),
    )


async def publish(through: RetryingPublisher, size: int = 1) -> bool:
    event = KratosIdentityGone(uuid4(), TEATIME, ADA)
    return await through.publish(event, FROM_A_WEBHOOK, size)


def test_a_call_waits_until_the_ledger_is_back() -> None:
    bus = RecordingEventBus()
    bus.be_unavailable(times=3)
    assert asyncio.run(publish(publisher(bus))) is True
    assert (bus.attempts, len(bus.events)) == (4, 1)


def test_a_call_gives_up_when_its_max_wait_ends() -> None:
    bus = RecordingEventBus()
    bus.be_unavailable()
    with pytest.raises(LedgerUnavailable):
        asyncio.run(publish(publisher(bus, max_wait=0.005)))
    assert bus.events == []


def test_a_call_without_max_wait_makes_one_attempt() -> None:
    bus = RecordingEventBus()
    bus.be_unavailable()
    with pytest.raises(LedgerUnavailable):
        asyncio.run(publish(publisher(bus, max_wait=0)))
    assert bus.attempts == 1


def test_an_attempt_under_way_when_max_wait_ends_still_counts() -> None:
    async def scenario() -> bool:
        bus = GatedBus()
        asyncio.get_running_loop().call_later(0.02, bus.gate.set)
        return await publish(publisher(bus, max_wait=0.005))

    assert asyncio.run(scenario()) is True


@pytest.mark.parametrize(("max_calls", "max_bytes"), [(4, 100), (100, 4)])
def test_no_more_calls_are_held_than_allowed(max_calls: int, max_bytes: int) -> None:
    async def scenario() -> list[bool | BaseException]:
        bus = GatedBus()
        held = publisher(bus, max_calls=max_calls, max_bytes=max_bytes)
        calls = [asyncio.create_task(publish(held)) for _ in range(6)]
        await until_on_loop(lambda: bus.calls + sum(call.done() for call in calls) == 6)
        bus.gate.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [*answers, await publish(held)]

    answers = asyncio.run(scenario())
    assert [type(answer) for answer in answers] == [bool] * 4 + [TooManyCallsWait] * 2 + [bool]


def test_calls_that_wait_for_the_ledger_are_held_until_they_end() -> None:
    async def scenario() -> tuple[int, int]:
        bus = RecordingEventBus()
        bus.be_unavailable()
        held = publisher(bus)
        calls = [asyncio.create_task(publish(held)) for _ in range(3)]
        await until_on_loop(lambda: held.held_calls == 3)
        bus.be_unavailable(times=0)
        await asyncio.gather(*calls)
        return len(bus.events), held.held_calls

    assert asyncio.run(scenario()) == (3, 0)


def test_a_call_that_is_recorded_at_once_is_not_held() -> None:
    async def scenario() -> tuple[int, int]:
        bus = GatedBus()
        held = publisher(bus)
        call = asyncio.create_task(publish(held))
        await until_on_loop(lambda: bus.calls == 1)
        during = held.held_calls
        bus.gate.set()
        await call
        return during, held.held_calls

    assert asyncio.run(scenario()) == (0, 0)


def test_any_other_error_is_raised_at_once() -> None:
    class BrokenBus(RecordingEventBus):
        async def publish(self, event: Publishable, provenance: Provenance) -> bool:
            self.attempts += 1
            raise ZeroDivisionError

    bus = BrokenBus()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(publish(publisher(bus)))
    assert bus.attempts == 1


def test_while_the_ledger_is_away_one_call_tries_for_all() -> None:
    async def scenario() -> int:
        bus = RecordingEventBus()
        bus.be_unavailable(times=6)
        held = publisher(bus, max_calls=1_000, max_bytes=1_000)
        first = asyncio.create_task(publish(held))
        await until_on_loop(lambda: bus.attempts)
        others = [asyncio.create_task(publish(held)) for _ in range(500)]
        assert await asyncio.gather(first, *others) == [True] * 501
        assert len(bus.events) == 501
        return bus.attempts

    assert asyncio.run(scenario()) == 6 + 501


def test_a_call_that_only_fails_itself_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class BusThatHatesOne(RecordingEventBus):
        async def publish(self, event: Publishable, provenance: Provenance) -> bool:
            if provenance.source == "hated":
                self.attempts += 1
                raise LedgerUnavailable("PostgreSQL was too slow")
            return await super().publish(event, provenance)

    now = 0.0
    monkeypatch.setattr(publisher_module, "time", SimpleNamespace(monotonic=lambda: now))

    async def scenario() -> None:
        nonlocal now
        bus = BusThatHatesOne()
        held = publisher(bus, max_wait=1)
        event = KratosIdentityGone(uuid4(), TEATIME, ADA)
        hated = asyncio.create_task(held.publish(event, Provenance("hated"), 1))
        await until_on_loop(lambda: bus.attempts)
        assert await asyncio.gather(*(publish(held) for _ in range(3))) == [True] * 3
        now = 2.0
        with pytest.raises(LedgerUnavailable):
            await hated

    asyncio.run(scenario())


def test_a_held_call_that_is_cancelled_leaves_the_others_waiting_for_their_turn() -> None:
    async def scenario() -> bool:
        bus = RecordingEventBus()
        bus.be_unavailable(times=5)
        held = publisher(bus)
        first, second = (asyncio.create_task(publish(held)) for _ in range(2))
        await until_on_loop(lambda: bus.attempts)
        first.cancel()
        return await second

    assert asyncio.run(scenario()) is True


def test_a_call_that_is_cancelled_when_its_turn_comes_leaves_that_to_another() -> None:
    async def scenario() -> bool:
        bus = RecordingEventBus()
        bus.be_unavailable(times=2)
        held = publisher(bus)
        first, second = (asyncio.create_task(publish(held)) for _ in range(2))
        await until_on_loop(lambda: bus.attempts)
        asyncio.get_running_loop().call_later(0, first.cancel)
        return await second

    assert asyncio.run(scenario()) is True


def test_waiting_calls_fail_at_once_when_waiting_is_aborted() -> None:
    async def scenario() -> list[bool | BaseException]:
        bus = GatedBus()
        held = publisher(bus)
        under_way = [asyncio.create_task(publish(held)) for _ in range(2)]
        await until_on_loop(lambda: bus.calls == 2)
        held.abort_waiting()
        answers = await asyncio.gather(*under_way, return_exceptions=True)
        bus.gate.set()
        answers.append(await publish(held))
        bus.be_unavailable()
        return [*answers, *await asyncio.gather(publish(held), return_exceptions=True)]

    answers = asyncio.run(scenario())
    kinds = [type(answer) for answer in answers]
    assert kinds == [WaitingAborted, WaitingAborted, bool, WaitingAborted]
