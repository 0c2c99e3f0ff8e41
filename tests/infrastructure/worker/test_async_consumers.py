"""An async consumer that blocks the event loop is interrupted, and the others are not blamed."""

import asyncio
from datetime import timedelta
from typing import ClassVar
from uuid import UUID

import pytest

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline import Batch, concurrently, deliver
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
from kratos_sync.infrastructure.worker.watchdog import Watched
from kratos_sync.testing.ledger import InMemoryLedger
from tests.domain.people import cause
from tests.suites.occurrences import WEBHOOK, person, subscribed, updated

IDS = [cause(number) for number in range(1, 5)]


class Block(Consumer[KratosIdentityUpdated]):
    """Never lets go of the event loop at the second event; the others wait for each other."""

    name = "Block"
    time_limit = timedelta(milliseconds=100)
    blocks: ClassVar[bool] = True
    begun: ClassVar[list[UUID]] = []

    async def consume(self, event: KratosIdentityUpdated) -> None:
        self.begun.append(event.id)
        if event.id == IDS[0]:
            return
        while event.id == IDS[1] and self.blocks:
            pass
        await asyncio.sleep(0 if not self.blocks else 60)


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Block, "begun", [])
    monkeypatch.setattr(Block, "blocks", True)
    monkeypatch.setattr(concurrently, "GRACE_SECONDS", 0.5)


def delivered(ledger: InMemoryLedger) -> dict[UUID, str]:
    with subscribed(ledger, KratosIdentityUpdated, Block):
        for number in range(1, 5):
            ledger.publish(updated(number, person(number)), WEBHOOK)
        unit = ledger.unit_of_work()
        watched = Watched(Block, IDS, unit, InFlightDeliveries())
        deliver(Batch(Block, IDS, unit, ledger, watched))
    return {each.event_id: each.outcome for each in ledger.attempts}


def test_what_blocks_the_loop_fails_and_what_could_not_run_counts_no_attempt() -> None:
    ledger = InMemoryLedger()

    outcomes = delivered(ledger)

    assert outcomes == {IDS[0]: "succeeded", IDS[1]: "failed"}
    assert "TimeLimitExceeded" in str(ledger.deliveries[Block.name, IDS[1]].last_error)
    assert [ledger.deliveries[Block.name, each].attempts for each in IDS[2:]] == [0, 0]


def test_the_loop_goes_on_afterwards() -> None:
    delivered(InMemoryLedger())
    Block.blocks = False

    assert set(delivered(InMemoryLedger()).values()) == {"succeeded"}
