"""Rates between looks, and events and attempts one by one."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from kratos_sync.application.activity import LATE_SECONDS, Meter, NewActivity, Rates, Tail
from kratos_sync.application.ports.activity import (
    ActivityFilter,
    Counted,
    Position,
    SeenAttempt,
    SeenEvent,
)

BEGAN = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)
A_SECOND = timedelta(seconds=1)
MOST = 5


class Ledger:
    """The Activity port, of a ledger in memory whose time goes on when the test says so."""

    def __init__(self) -> None:
        self.now = BEGAN
        self.newest = 0
        self.recorded: list[SeenEvent] = []
        self.attempted: list[SeenAttempt] = []
        self.counted_between: list[tuple[Position, Position]] = []

    def clock(self) -> float:
        return (self.now - BEGAN).total_seconds()

    def record(self, at: datetime | None = None) -> UUID:
        event = SeenEvent(uuid4(), "identity.registered", uuid4(), "webhook", at or self.now)
        self.recorded.append(event)
        return event.id

    def attempt(self, number: int | None = None) -> int:
        """An attempt that is seen from now on; its number may be smaller than others' before."""
        self.newest = max(self.newest, number or self.newest + 1)
        made = SeenAttempt(
            number or self.newest,
            uuid4(),
            "identity.registered",
            uuid4(),
            "Greet",
            1,
            "succeeded",
            self.now,
            A_SECOND,
            None,
        )
        self.attempted.append(made)
        return made.id

    def position(self) -> Position:
        return Position(self.now, self.newest)

    def counted(self, after: Position, until: Position) -> Counted:
        self.counted_between.append((after, until))
        number = sum(after.attempt < each.id <= until.attempt for each in self.attempted)
        events = sum(after.at < each.recorded_at <= until.at for each in self.recorded)
        return Counted(events, {"Greet": {"succeeded": number}})

    def events(self, after: datetime, wanted: ActivityFilter, most: int) -> list[SeenEvent]:
        later = [each for each in self.recorded if each.recorded_at > after]
        return sorted(later, key=lambda each: each.recorded_at, reverse=True)[:most]

    def attempts(self, after: int, wanted: ActivityFilter, most: int) -> list[SeenAttempt]:
        later = [each for each in self.attempted if each.id > after]
        return sorted(later, key=lambda each: each.id, reverse=True)[:most]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def tail_of(ledger: Ledger, wanted: ActivityFilter | None = None) -> Tail:
    """A tail that has looked for the first time."""
    tail = Tail(ledger, wanted or ActivityFilter(), MOST, ledger.clock)
    assert tail.look().seen == ()
    return tail


def ids(tail: Tail) -> list[object]:
    return [each.id for each in tail.look().seen]


def test_rates_are_those_between_the_two_looks_before(ledger: Ledger) -> None:
    meter = Meter(ledger)
    assert meter.look() is None
    for _ in range(6):
        ledger.attempt()
    ledger.now += 2 * A_SECOND
    ledger.record()
    assert meter.look() is None
    ledger.now += 2 * A_SECOND
    ledger.attempt()

    rates = meter.look()

    assert rates is not None
    assert (rates.events, rates.of("Greet", "succeeded"), rates.of(None, "succeeded")) == (
        0.5,
        3.0,
        3.0,
    )
    assert (rates.of("Greet", "failed"), rates.of("Count", "succeeded")) == (0.0, 0.0)


def test_what_is_committed_late_is_counted(ledger: Ledger) -> None:
    meter = Meter(ledger)
    meter.look()
    ledger.now += A_SECOND
    ledger.attempt(2)
    meter.look()
    ledger.attempt(1)
    ledger.now += A_SECOND

    rates = meter.look()

    assert rates == Rates(0.0, {"Greet": {"succeeded": 2.0}})


def test_a_clock_that_was_set_back_gives_no_rates(ledger: Ledger) -> None:
    meter = Meter(ledger)
    for _ in range(3):
        ledger.now -= A_SECOND
        assert meter.look() is None


def test_a_tail_begins_with_what_comes_after_its_first_look(ledger: Ledger) -> None:
    ledger.record()
    ledger.attempt()
    tail = tail_of(ledger)
    ledger.now += A_SECOND
    new = [ledger.record(), ledger.attempt()]

    assert ids(tail) == new
    assert ids(tail) == []


def test_a_tail_is_in_the_order_of_time(ledger: Ledger) -> None:
    tail = tail_of(ledger)
    ledger.now += A_SECOND
    first = ledger.attempt()
    ledger.now += A_SECOND
    second = ledger.record()
    ledger.now += A_SECOND
    third = ledger.attempt()

    assert ids(tail) == [first, second, third]


def test_a_tail_gives_what_is_committed_late_once(ledger: Ledger) -> None:
    tail = tail_of(ledger)
    began = ledger.now + A_SECOND / 2
    ledger.now += A_SECOND
    later = ledger.attempt(2), ledger.record()
    assert set(ids(tail)) == {*later}
    ledger.now += timedelta(seconds=LATE_SECONDS - 2)
    late = ledger.attempt(1), ledger.record(began)

    assert set(ids(tail)) == {*late}
    assert ids(tail) == []


def test_a_tail_does_not_look_back_for_ever(ledger: Ledger) -> None:
    tail = tail_of(ledger)
    for _ in range(100):
        ledger.now += A_SECOND
        ledger.attempt()
        tail.look()
    ledger.attempt(3)

    assert ids(tail) == []


def test_more_than_can_be_shown_is_cut_to_the_newest_and_said(ledger: Ledger) -> None:
    tail = tail_of(ledger)
    ledger.now += A_SECOND
    for _ in range(MOST):
        ledger.attempt()
    as_many = tail.look()
    made = [ledger.attempt() for _ in range(MOST + 2)]
    more = tail.look()

    assert (len(as_many.seen), as_many.is_cut) == (MOST, False)
    assert [each.id for each in more.seen] == made[2:]
    assert more.is_cut
    assert tail.look() == NewActivity(())


def test_events_have_no_consumer_and_no_outcome(ledger: Ledger) -> None:
    for wanted in (ActivityFilter(consumer="Greet"), ActivityFilter(outcomes=("failed",))):
        tail = tail_of(ledger, wanted)
        ledger.now += A_SECOND
        ledger.record()
        attempt = ledger.attempt()
        assert ids(tail) == [attempt]
