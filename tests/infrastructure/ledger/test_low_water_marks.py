"""Scans that begin at a low-water mark, and miss nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.infrastructure.ledger import backlog
from kratos_sync.infrastructure.ledger.backlog import (
    BEGINNING,
    FAILED_SECONDS,
    LONGEST_SECONDS,
    MARGIN,
    SOON,
    SURVEY,
    LowWaterMark,
    LowWaterMarks,
)
from kratos_sync.infrastructure.ledger.claims import CLAIM, PostgresClaims
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.infrastructure.postgres.engine import connect
from tests.infrastructure.ledger.rows import add_delivery
from tests.suites.occurrences import WEBHOOK, updated

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
    monkeypatch.setattr(backlog, "monotonic", clock)
    return clock


def scanned(clock: Clock, *scans: float) -> LowWaterMarks:
    known = LowWaterMarks(LEASE)
    for seconds in scans:
        known.update(SYNC, NOW, None, None)
        known.full_scan_took([SYNC], seconds)
    return known


def after_slow_scans(engine: Engine) -> PostgresClaims:
    """Claims that begin at their marks from now on."""
    claims = PostgresClaims(engine, LEASE)
    claims.survey([SYNC])
    for _ in range(2):
        claims._marks.full_scan_took([SYNC], VERY_SLOW)
    return claims


def has_mark(known: LowWaterMarks) -> bool:
    return known.for_survey([SYNC]) != [BEGINNING]


def test_where_scans_are_quick_all_are_full(clock: Clock) -> None:
    assert not has_mark(LowWaterMarks(LEASE))
    assert not has_mark(scanned(clock, QUICK, QUICK))


def test_marks_are_used_after_two_slow_scans_in_a_row(clock: Clock) -> None:
    assert not has_mark(scanned(clock, SLOW))
    assert not has_mark(scanned(clock, SLOW, QUICK, SLOW))
    assert has_mark(scanned(clock, SLOW, SLOW))
    assert not has_mark(scanned(clock, VERY_SLOW))


@pytest.mark.parametrize(("took", "pause"), [(0.1, 3.0), (2.0, LONGEST_SECONDS)])
def test_full_scans_take_a_small_share_of_the_time_and_never_end(
    clock: Clock, took: float, pause: float
) -> None:
    known = scanned(clock, took, took)
    clock.seconds += pause - 0.1
    assert has_mark(known)
    clock.seconds += 0.2
    assert not has_mark(known)


@pytest.mark.parametrize(
    ("fresh", "leased", "mark"),
    [
        (None, None, LowWaterMark(NOW - A_SECOND, NOW + LEASE - A_SECOND)),
        (NOW - HOUR, NOW + A_SECOND, LowWaterMark(NOW - HOUR - A_SECOND, NOW)),
        (NOW + A_SECOND, NOW + HOUR, LowWaterMark(NOW - A_SECOND, NOW + LEASE - A_SECOND)),
    ],
    ids=["nothing pending", "something pending", "due in the future"],
)
def test_a_mark_lies_below_what_is_pending_and_what_may_come(
    fresh: datetime | None, leased: datetime | None, mark: LowWaterMark
) -> None:
    known = LowWaterMarks(LEASE)
    known.update(SYNC, NOW, fresh, leased)
    assert known.known(SYNC) == mark


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
def test_dead_rows_that_a_snapshot_holds_cost_a_survey_and_a_claim_nothing(engine: Engine) -> None:
    leave_dead(engine, 3_000)
    claims = PostgresClaims(engine, LEASE)
    add_delivery(engine, SYNC)
    claims.survey([SYNC])
    mark = claims._marks.known(SYNC)
    survey = SURVEY.text.replace(":consumers", "%(consumers)s").replace(":soon", "%(soon)s")
    survey = survey.replace(":fresh", "%(fresh)s").replace(":leased", "%(leased)s")
    looked, claimed = (
        [
            pages(
                engine,
                survey,
                {"consumers": [SYNC], "fresh": [at.fresh], "leased": [at.leased], "soon": SOON},
            )
            for at in (BEGINNING, mark)
        ],
        [pages(engine, CLAIM, (SYNC, 10, LEASE, at.fresh, at.leased)) for at in (BEGINNING, mark)],
    )
    assert looked[0] > 1_000
    assert looked[1] < 50
    assert claimed[0] > 1_000
    assert claimed[1] < 100


def test_what_lies_below_the_mark_is_found_by_the_next_full_scan(
    engine: Engine, clock: Clock
) -> None:
    claims = after_slow_scans(engine)
    late = add_delivery(engine, SYNC, due_in=-HOUR)
    expired = add_delivery(engine, SYNC, due_in=-HOUR, leased=True)

    assert not claims.survey([SYNC])[SYNC].is_due
    assert claims.claim(SYNC, 10).event_ids == []

    clock.seconds += LONGEST_SECONDS
    assert claims.survey([SYNC])[SYNC].is_due
    claim = claims.claim(SYNC, 10)
    assert (set(claim.event_ids), claim.expired) == ({late, expired}, 1)


def test_what_a_long_transaction_records_in_the_end_lies_above_the_mark(
    engine: Engine, clock: Clock
) -> None:
    claims = after_slow_scans(engine)
    with engine.begin() as long:
        long.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": 1.5 * MARGIN.total_seconds()})
        claims.survey([SYNC])
        record_many(long, [(updated(1), WEBHOOK)])

    assert claims.survey([SYNC])[SYNC].is_due


def test_above_the_mark_everything_is_found_at_once(engine: Engine, clock: Clock) -> None:
    claims, another = after_slow_scans(engine), PostgresClaims(engine, LEASE)
    first = add_delivery(engine, SYNC)
    assert claims.survey([SYNC])[SYNC].is_due
    assert another.claim(SYNC, 10).event_ids == [first]
    assert claims.survey([SYNC])[SYNC].leased == 1

    another.release(SYNC, [first])
    assert claims.survey([SYNC])[SYNC].is_due
    assert claims.claim(SYNC, 10).event_ids == [first]


def test_a_full_scan_that_times_out_stops_no_relay(
    engine: Engine, database_url: str, clock: Clock
) -> None:
    recent, old = add_delivery(engine, SYNC), add_delivery(engine, SYNC, due_in=-HOUR)
    hurried = connect(SecretStr(database_url), 1, statement_timeout=timedelta(seconds=1))
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
