"""Looks that begin where something is owed, and lose nothing by it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.infrastructure.ledger import backlog as floors
from kratos_sync.infrastructure.ledger.backlog import (
    FAILED_SECONDS,
    LONGEST_SECONDS,
    MARGIN,
    NO_FLOOR,
    SOON,
    SURVEY,
    Floor,
    Floors,
)
from kratos_sync.infrastructure.ledger.claims import CLAIM, PostgresClaims
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.postgres.engine import connect
from tests.infrastructure.ledger.rows import owe
from tests.suites.occurrences import WEBHOOK, subscribed, updated

SYNC = SyncKratosIdentity.name
LEASE = timedelta(seconds=30)
HOUR = timedelta(hours=1)
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
A_SECOND = timedelta(seconds=1)
QUICK, SLOW, VERY_SLOW = 0.001, 0.1, 2.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(floors, "monotonic", clock)
    return clock


def learned(clock: Clock, *looks: float) -> Floors:
    known = Floors(LEASE)
    for seconds in looks:
        known.learn(SYNC, NOW, None, None)
        known.full_look_took([SYNC], seconds)
    return known


def has_floor(known: Floors) -> bool:
    return known.for_survey([SYNC]) != [NO_FLOOR]


def test_where_looks_are_quick_all_are_full(clock: Clock) -> None:
    assert not has_floor(Floors(LEASE))
    assert not has_floor(learned(clock, QUICK, QUICK))


def test_one_slow_look_may_be_chance_and_two_are_not(clock: Clock) -> None:
    assert not has_floor(learned(clock, SLOW))
    assert not has_floor(learned(clock, SLOW, QUICK, SLOW))
    assert has_floor(learned(clock, SLOW, SLOW))
    assert not has_floor(learned(clock, VERY_SLOW))


@pytest.mark.parametrize(("took", "pause"), [(0.1, 3.0), (2.0, LONGEST_SECONDS)])
def test_full_looks_take_a_small_part_of_the_time_and_never_end(
    clock: Clock, took: float, pause: float
) -> None:
    known = learned(clock, took, took)
    clock.seconds += pause - 0.1
    assert has_floor(known)
    clock.seconds += 0.2
    assert not has_floor(known)


@pytest.mark.parametrize(
    ("fresh", "leased", "floor"),
    [
        (None, None, Floor(NOW - A_SECOND, NOW + LEASE - A_SECOND)),
        (NOW - HOUR, NOW + A_SECOND, Floor(NOW - HOUR - A_SECOND, NOW)),
        (NOW + A_SECOND, NOW + HOUR, Floor(NOW - A_SECOND, NOW + LEASE - A_SECOND)),
    ],
    ids=["nothing owed", "something owed", "due in the future"],
)
def test_a_floor_lies_below_what_is_owed_and_what_may_come(
    fresh: datetime | None, leased: datetime | None, floor: Floor
) -> None:
    known = Floors(LEASE)
    known.learn(SYNC, NOW, fresh, leased)
    assert known.known(SYNC) == floor


@pytest.fixture
def snapshot(database_url: str) -> Iterator[None]:
    """A transaction that will see what is removed meanwhile."""
    with psycopg.connect(database_url) as holder:
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("SELECT 1")
        yield


def leave_dead(engine: Engine, many: int) -> None:
    rows = {"consumer": SYNC, "many": many}
    for statement in (
        """INSERT INTO kratos_sync.deliveries (event_id, consumer, subject, due_at)
           SELECT gen_random_uuid(), :consumer, gen_random_uuid(), now() - i * interval '10 ms'
           FROM generate_series(500, 500 + :many) i ORDER BY random()""",
        "UPDATE kratos_sync.deliveries SET leased = true, due_at = due_at + interval '25 s'",
        "DELETE FROM kratos_sync.deliveries",
    ):
        with engine.begin() as connection:
            connection.execute(text(statement), rows)


def pages(engine: Engine, statement: str, parameters: object) -> int:
    """How many pages it looks at."""
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        kind = psycopg.Cursor if isinstance(parameters, dict) else psycopg.RawCursor
        ((answer,),) = kind(driver).execute(explain, parameters).fetchall()
        return int(answer[0]["Plan"]["Shared Hit Blocks"])


@pytest.mark.usefixtures("snapshot")
def test_dead_rows_that_a_snapshot_holds_cost_a_look_and_a_claim_nothing(engine: Engine) -> None:
    leave_dead(engine, 3_000)
    claims = PostgresClaims(engine, LEASE)
    owe(engine, SYNC)
    claims.survey([SYNC])
    floor = claims._floors.known(SYNC)
    survey = SURVEY.text.replace(":consumers", "%(consumers)s").replace(":soon", "%(soon)s")
    survey = survey.replace(":fresh", "%(fresh)s").replace(":leased", "%(leased)s")
    looked, claimed = (
        [
            pages(
                engine,
                survey,
                {"consumers": [SYNC], "fresh": [at.fresh], "leased": [at.leased], "soon": SOON},
            )
            for at in (NO_FLOOR, floor)
        ],
        [pages(engine, CLAIM, (SYNC, 10, LEASE, at.fresh, at.leased)) for at in (NO_FLOOR, floor)],
    )
    assert looked[0] > 1_000
    assert looked[1] < 50
    assert claimed[0] > 1_000
    assert claimed[1] < 100


def test_what_lies_below_the_floor_is_found_by_the_next_full_look(
    engine: Engine, clock: Clock
) -> None:
    claims = PostgresClaims(engine, LEASE)
    claims.survey([SYNC])
    for _ in range(2):
        claims._floors.full_look_took([SYNC], VERY_SLOW)
    late = owe(engine, SYNC, due_in=-HOUR)
    expired = owe(engine, SYNC, due_in=-HOUR, leased=True)

    assert not claims.survey([SYNC])[SYNC].is_due
    assert claims.claim(SYNC, 10).event_ids == []

    clock.seconds += LONGEST_SECONDS
    assert claims.survey([SYNC])[SYNC].is_due
    claim = claims.claim(SYNC, 10)
    assert (set(claim.event_ids), claim.expired) == ({late, expired}, 1)


def test_what_a_long_transaction_owes_in_the_end_lies_above_the_floor(
    engine: Engine, clock: Clock
) -> None:
    claims = PostgresClaims(engine, LEASE)
    claims.survey([SYNC])
    for _ in range(2):
        claims._floors.full_look_took([SYNC], VERY_SLOW)
    with subscribed(KratosIdentityUpdated, SyncKratosIdentity), engine.begin() as long:
        long.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": 1.5 * MARGIN.total_seconds()})
        claims.survey([SYNC])
        record_many(long, [(updated(1), WEBHOOK)])

    assert claims.survey([SYNC])[SYNC].is_due


def test_above_the_floor_everything_is_found_at_once(engine: Engine, clock: Clock) -> None:
    claims, another = PostgresClaims(engine, LEASE), PostgresClaims(engine, LEASE)
    claims.survey([SYNC])
    for _ in range(2):
        claims._floors.full_look_took([SYNC], VERY_SLOW)

    first = owe(engine, SYNC)
    assert claims.survey([SYNC])[SYNC].is_due
    assert another.claim(SYNC, 10).event_ids == [first]
    assert claims.survey([SYNC])[SYNC].leased == 1

    another.release(SYNC, [first])
    assert claims.survey([SYNC])[SYNC].is_due
    assert claims.claim(SYNC, 10).event_ids == [first]


def test_a_full_look_that_takes_too_long_stops_no_relay(
    engine: Engine, database_url: str, clock: Clock
) -> None:
    recent, old = owe(engine, SYNC), owe(engine, SYNC, due_in=-HOUR)
    hurried = connect(SecretStr(database_url), 1, statement_timeout=timedelta(milliseconds=200))
    claims = PostgresClaims(hurried, LEASE)
    with engine.begin() as blocking:
        blocking.execute(text("LOCK TABLE kratos_sync.deliveries IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(DBAPIError):
            claims.survey([SYNC])

    assert claims.survey([SYNC])[SYNC].is_due
    assert claims.claim(SYNC, 10).event_ids == [recent]

    clock.seconds += FAILED_SECONDS
    assert claims.survey([SYNC])[SYNC].is_due
    assert claims.claim(SYNC, 10).event_ids == [old]
    hurried.dispose()
