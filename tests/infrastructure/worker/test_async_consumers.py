"""An async consumer that blocks the event loop is interrupted, and the others do not fail."""

import asyncio
import sys
import threading
import time
from datetime import timedelta
from typing import ClassVar, cast
from uuid import UUID

import pytest

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline import Batch, concurrently, deliver
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
from kratos_sync.infrastructure.worker.watchdog import Watchdog, Watched
from kratos_sync.testing.ledger import InMemoryLedger
from tests.domain.people import cause
from tests.suites.occurrences import WEBHOOK, person, subscribed, updated
from tests.waiting import until_on_loop

NO_CLAIMS = cast("PostgresClaims", None)  # nothing is released here
IDS = [cause(number) for number in range(1, 5)]


class Block(Consumer[KratosIdentityUpdated]):
    """Blocks the event loop at the second event, once the first is done and the others await."""

    name = "Block"
    time_limit = timedelta(milliseconds=200)
    blocks: ClassVar[bool] = True

    async def consume(self, event: KratosIdentityUpdated) -> None:
        if event.id != IDS[0]:
            await asyncio.sleep(0.01)
        while event.id == IDS[1] and self.blocks:
            pass


class BlockInSubtask(Block):
    name = "BlockInSubtask"

    async def consume(self, event: KratosIdentityUpdated) -> None:
        await asyncio.gather(super().consume(event))


class BlockBriefly(Consumer[KratosIdentityUpdated]):
    """Blocks for longer than the limit of the others, and not for longer than its own."""

    name = "BlockBriefly"
    time_limit = timedelta(seconds=30)
    seconds: ClassVar[float] = 0.8
    has_begun: ClassVar[threading.Event]

    async def consume(self, event: KratosIdentityUpdated) -> None:
        if event.id == IDS[1]:
            self.has_begun.set()
            until = time.monotonic() + self.seconds
            while time.monotonic() < until:
                pass


class Quick(Consumer[KratosIdentityUpdated]):
    """Awaits something for a moment."""

    name = "Quick"
    time_limit = timedelta(milliseconds=200)

    async def consume(self, event: KratosIdentityUpdated) -> None:
        await asyncio.sleep(0.01)


class ExitInSubtask(Consumer[KratosIdentityUpdated]):
    name = "ExitInSubtask"

    async def consume(self, event: KratosIdentityUpdated) -> None:
        async def leave() -> None:
            sys.exit(3)

        if event.id == IDS[1]:
            await asyncio.gather(leave())


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockBriefly, "has_begun", threading.Event(), raising=False)
    monkeypatch.setattr(Block, "blocks", True)
    monkeypatch.setattr(concurrently, "GRACE_SECONDS", 0.5)


def delivered(
    kind: type[Consumer[KratosIdentityUpdated]], ledger: InMemoryLedger | None = None
) -> dict[UUID, str]:
    ledger = InMemoryLedger() if ledger is None else ledger
    with subscribed(ledger, KratosIdentityUpdated, kind):
        for number in range(1, 5):
            ledger.publish(updated(number, person(number)), WEBHOOK)
        unit = ledger.unit_of_work()
        watched = Watched(kind, IDS, unit, InFlightDeliveries())
        deliver(Batch(kind, IDS, unit, ledger, watched))
    return {each.event_id: each.outcome for each in ledger.attempts}


@pytest.mark.parametrize("kind", [Block, BlockInSubtask])
def test_what_blocks_the_loop_fails_and_the_others_have_their_time(kind: type[Block]) -> None:
    ledger = InMemoryLedger()

    outcomes = delivered(kind, ledger)

    others = dict.fromkeys([IDS[0], *IDS[2:]], "succeeded")
    assert outcomes == {IDS[1]: "failed", **others}
    assert "TimeLimitExceeded" in str(ledger.deliveries[kind.name, IDS[1]].last_error)


def test_the_loop_goes_on_afterwards() -> None:
    delivered(Block)
    Block.blocks = False

    assert set(delivered(Block).values()) == {"succeeded"}


def test_a_consumer_with_a_shorter_limit_interrupts_nobody_and_loses_no_time() -> None:
    outcomes: dict[UUID, str] = {}
    blocking = threading.Thread(target=lambda: outcomes.update(delivered(BlockBriefly)))
    blocking.start()
    BlockBriefly.has_begun.wait()

    assert set(delivered(Quick).values()) == {"succeeded"}
    blocking.join()
    assert set(outcomes.values()) == {"succeeded"}


def test_an_exit_in_a_task_of_its_own_fails_one_event_and_the_loop_goes_on() -> None:
    others = dict.fromkeys([IDS[0], *IDS[2:]], "succeeded")

    assert delivered(ExitInSubtask) == {IDS[1]: "failed", **others}
    assert set(delivered(Quick).values()) == {"succeeded"}


class Look(Consumer[KratosIdentityUpdated]):
    """Looks at what a successor would find if the process died now, and once the first ended."""

    name = "Look"
    memory: ClassVar[InFlightDeliveries]
    found: ClassVar[list[set[UUID]]]

    async def consume(self, event: KratosIdentityUpdated) -> None:
        if event.id != IDS[0]:
            await until_on_loop(lambda: IDS[0] not in {each.event_id for each in self.memory})
        self.found.append({each.event_id for each in self.memory})


def test_all_that_runs_is_in_flight_and_what_has_ended_is_not() -> None:
    Look.memory, Look.found = InFlightDeliveries(), []
    ledger = InMemoryLedger()
    with subscribed(ledger, KratosIdentityUpdated, Look):
        for number in range(1, 5):
            ledger.publish(updated(number, person(number)), WEBHOOK)
        unit = ledger.unit_of_work()
        with Watchdog(ledger, NO_CLAIMS, Look.memory).over(Look, IDS, unit) as watch:
            deliver(Batch(Look, IDS, unit, ledger, watch))

    assert Look.found[0] == set(IDS)
    assert Look.found[1] == set(IDS[1:])
    assert list(Look.memory) == []
