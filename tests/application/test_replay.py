"""When a replay waits, and when it gives up; what it does stands in the ledger's own test."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.position import Position
from kratos_sync.application.ports.replay import EventRange, Step
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.application.replay import (
    BUSY_SECONDS,
    MOST_CONFLICTS,
    ConsumerIsBehind,
    Replay,
)
from tests.infrastructure.kratos.clock import Clock

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
SYNC = SyncKratosIdentity.name
DAY = EventRange(SYNC, ("kratos_identity.updated",), NOON, NOON + timedelta(days=1))


class Log:
    """So many events, and a consumer that has in flight what the test says."""

    def __init__(self, events: int, in_flight: Iterator[int] | None = None) -> None:
        self.left = events
        self.conflicts = 0
        self.asked: list[int] = []
        self._in_flight = in_flight

    def now(self) -> datetime:
        return NOON

    def count(self, wanted: EventRange) -> int:
        return self.left

    def in_flight(self, consumer: str, most: int) -> int:
        return min(next(self._in_flight), most) if self._in_flight else 0

    def redeliver(self, wanted: EventRange, after: Position | None, most: int) -> Step:
        if self.conflicts:
            self.conflicts -= 1
            raise ConcurrencyConflict
        number = min(self.left, most)
        self.asked.append(number)
        self.left -= number
        return Step(number, 0, Position(NOON, UUID(int=self.left)) if number else None)


def replayed(log: Log, clock: Clock, rate: int = 500) -> int:
    woken: list[float] = []
    replay = Replay(log, lambda: woken.append(clock.now), clock, clock.pause)
    steps = list(replay.run(DAY, SyncKratosIdentity.batch_size, rate))
    assert len(woken) == len(steps)
    return steps[-1].replayed if steps else 0


def test_the_rate_is_kept_and_the_relay_woken_after_each_step() -> None:
    clock = Clock()
    assert replayed(Log(1_000), clock, rate=100) == 1_000
    assert 9.75 <= clock.now - 1_000 <= 10.25


def test_no_step_is_larger_than_what_the_consumer_may_have_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SyncKratosIdentity, "batch_size", 1)
    log = Log(10)
    assert replayed(log, Clock(), rate=100_000) == 10
    assert log.asked == [4, 4, 2, 0]


def test_it_waits_while_the_consumer_has_many_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(SyncKratosIdentity, "batch_size", 1)
    clock = Clock()
    log = Log(1, in_flight=iter([4, 9, 4, 3, 0]))
    assert replayed(log, clock) == 1
    assert clock.now - 1_000 == pytest.approx(0.3, abs=0.01)


def test_it_gives_up_on_a_consumer_that_stays_busy() -> None:
    clock, log = Clock(), Log(1, in_flight=iter(lambda: 10_000, None))
    with pytest.raises(ConsumerIsBehind, match=SYNC):
        replayed(log, clock)
    assert log.left == 1
    assert clock.now - 1_000 == pytest.approx(BUSY_SECONDS, abs=1)


def test_a_conflict_is_tried_again() -> None:
    log = Log(5)
    log.conflicts = MOST_CONFLICTS
    assert replayed(log, Clock()) == 5


def test_conflict_after_conflict_ends_it() -> None:
    log = Log(5)
    log.conflicts = 1_000
    with pytest.raises(ConcurrencyConflict):
        replayed(log, Clock())
