"""What the ledger does by a clock that is wrong, and after one that was."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.dead_letters import DeadLetterFilter
from kratos_sync.application.ports.purge import ClocksDiffer, Removed
from kratos_sync.domain.events import NO_IDENTITY, KratosTemplateFailed
from kratos_sync.domain.id_range import ALL_IDS
from kratos_sync.infrastructure.erasure import PostgresErasures
from kratos_sync.infrastructure.ledger.backlog import LONGEST_SECONDS, SOON, SURVEY
from kratos_sync.infrastructure.ledger.claims import CLAIM, PostgresClaims
from kratos_sync.infrastructure.ledger.dead_letters import (
    PostgresDeadLetterDecisions,
    PostgresDeadLetters,
)
from kratos_sync.infrastructure.ledger.hook_activity import template_failures
from kratos_sync.infrastructure.ledger.purge import PostgresPurge
from kratos_sync.infrastructure.ledger.status import PostgresStatus
from kratos_sync.infrastructure.reconciliation import runs
from kratos_sync.infrastructure.reconciliation.runs import PostgresReconciliations
from tests.infrastructure.ledger.rows import SOMEBODY, add_delivery, add_event
from tests.infrastructure.ledger.test_low_water_marks import pages
from tests.infrastructure.ledger.test_purge import A_MONTH, DAY, ids, purge, run
from tests.infrastructure.ledger.test_purge_schedule import running
from tests.waiting import until

SYNC = SyncKratosIdentity.name
LEASE = timedelta(seconds=30)
HOUR = timedelta(hours=1)
YEAR = timedelta(days=366)


def set_our_clock(monkeypatch: pytest.MonkeyPatch, ahead: timedelta) -> None:
    """Put this process' clock ahead of the database's, or behind it."""
    monkeypatch.setattr(
        "kratos_sync.infrastructure.postgres.engine.time_of_day", lambda: datetime.now(UTC) + ahead
    )


@pytest.mark.parametrize("ahead", [-YEAR, -HOUR - LEASE, HOUR + LEASE, YEAR])
def test_nothing_is_purged_by_clocks_that_are_an_hour_apart(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    old = add_event(engine, age=40 * DAY)
    set_our_clock(monkeypatch, ahead)
    how = "behind" if ahead > timedelta() else "ahead of"

    with pytest.raises(ClocksDiffer, match=f"the database's clock is .* s {how} this machine's"):
        purge(engine)
    with pytest.raises(ClocksDiffer):
        PostgresPurge(engine).preview(A_MONTH, threading.Event(), lambda _: None)

    assert ids(engine, "events") == {old}
    assert ids(engine, "purges") == set()


@pytest.mark.parametrize("ahead", [-HOUR + LEASE, timedelta(), HOUR - LEASE])
def test_clocks_that_are_less_apart_hinder_no_purge(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    add_event(engine, age=40 * DAY)
    set_our_clock(monkeypatch, ahead)
    assert purge(engine).removed == Removed(events=1)


def test_the_schedule_logs_that_clocks_differ_and_purges_once_they_do_not(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kratos_sync.infrastructure.schedule.FIRST_SECONDS", 0.01)
    add_event(engine, age=40 * DAY)
    set_our_clock(monkeypatch, YEAR)
    with capture_logs() as logged, running(engine):
        until(lambda: logged)
        set_our_clock(monkeypatch, timedelta())
        until(lambda: ids(engine, "events") == set())
    assert logged[0]["event"] == "purge_abandoned"
    assert "the database's clock" in logged[0]["reason"]


def test_a_purge_at_a_time_to_come_does_not_put_off_the_next(engine: Engine) -> None:
    run(
        engine,
        "INSERT INTO kratos_sync.purges (started_at, seen_at, ended_at)"
        " SELECT at, at, at FROM (SELECT now() + interval '366 d' AS at) AS by_a_wrong_clock",
    )
    assert PostgresPurge(engine).is_due(HOUR)


def test_a_purge_that_was_killed_at_a_time_to_come_keeps_no_other_out(engine: Engine) -> None:
    run(
        engine,
        "INSERT INTO kratos_sync.purges (started_at, seen_at)"
        " VALUES (now() + interval '366 d', now() + interval '366 d')",
    )
    assert purge(engine).completed


def test_a_reconciliation_at_a_time_to_come_does_not_put_off_the_next(engine: Engine) -> None:
    run(
        engine,
        "INSERT INTO kratos_sync.reconciliations (started_at, seen_at, ended_at, held)"
        " SELECT at, at, at, 0 FROM (SELECT now() + interval '366 d' AS at) AS by_a_wrong_clock",
    )
    assert PostgresReconciliations(engine).is_due(HOUR)


def test_a_reconciliation_at_a_time_to_come_hides_nothing_that_was_missed(engine: Engine) -> None:
    run(
        engine,
        "INSERT INTO kratos_sync.reconciliations"
        " (started_at, seen_at, ended_at, outcome, held, identities)"
        " SELECT at, at, at, 'completed', 1, 1"
        " FROM (SELECT now() + interval '366 d' AS at) AS by_a_wrong_clock",
    )
    add_event(engine, name=KratosTemplateFailed.name, subject=NO_IDENTITY)

    with engine.connect() as connection:
        (missed,) = template_failures(connection)
        assert missed.calls == 1
        assert runs.begin_dry(connection, ALL_IDS).before is None


def test_a_template_that_failed_at_a_time_to_come_does_not_bring_forward_every_next(
    engine: Engine,
) -> None:
    run(
        engine,
        "INSERT INTO kratos_sync.reconciliations (started_at, seen_at, ended_at, held)"
        " SELECT at, at, at, 0 FROM (SELECT now() - interval '10 min' AS at) AS before",
    )
    add_event(engine, name=KratosTemplateFailed.name, subject=NO_IDENTITY, age=-YEAR)
    assert not PostgresReconciliations(engine).is_due(HOUR)
    add_event(engine, name=KratosTemplateFailed.name, subject=NO_IDENTITY)
    assert PostgresReconciliations(engine).is_due(HOUR)


def test_an_erasure_is_due_however_far_ahead_the_clock_was(engine: Engine) -> None:
    run(
        engine,
        "INSERT INTO kratos_sync.erasures (identity_id, by, reason, look_at)"
        " VALUES (:id, 'Ada', 'asked', now() + interval '366 d')",
        id=SOMEBODY,
    )
    erasures = PostgresErasures(engine)
    assert list(erasures.due(10)) == [SOMEBODY]
    assert list(erasures.due(10)) == []


def test_a_dead_letter_of_a_time_to_come_is_found_and_decided_on(engine: Engine) -> None:
    add_delivery(engine, SYNC, attempts=12, failed_ago=-YEAR, error_type="OSError")
    letters = PostgresDeadLetters(engine)
    until_now = DeadLetterFilter(until=letters.now())

    assert letters.count(until_now) == letters.groups(until_now, 1).dead_letters == 1
    assert list(PostgresDeadLetterDecisions(engine).retry(until_now, "Ada", 10)) == [1]
    assert PostgresClaims(engine, LEASE).survey([SYNC])[SYNC].is_due


@pytest.mark.parametrize("due_in", [LEASE, HOUR, YEAR])
@pytest.mark.parametrize("has_mark", [False, True], ids=["full scan", "mark"])
def test_what_was_never_attempted_is_due_whatever_its_time(
    engine: Engine, due_in: timedelta, has_mark: bool
) -> None:
    claims = PostgresClaims(engine, LEASE)
    if has_mark:
        claims.survey([SYNC])
        for _ in range(2):
            claims._marks.full_scan_took([SYNC], LONGEST_SECONDS)
    ahead = {add_delivery(engine, SYNC, due_in=due_in) for _ in range(3)}
    now = add_delivery(engine, SYNC)

    assert claims.survey([SYNC])[SYNC].is_due
    assert claims.claim(SYNC, 1).event_ids == [now]
    assert claims.survey([SYNC])[SYNC].is_due
    assert set(claims.claim(SYNC, 10).event_ids) == ahead
    assert not claims.survey([SYNC])[SYNC].is_due


def test_what_was_attempted_or_postponed_waits_for_its_time(engine: Engine) -> None:
    add_delivery(engine, SYNC, due_in=HOUR, attempts=1, error_type="OSError")
    add_delivery(engine, SYNC, due_in=HOUR, error_type="RetryLater")
    add_delivery(engine, SYNC, due_in=HOUR, failed_ago=LEASE)
    claims = PostgresClaims(engine, LEASE)

    assert not claims.survey([SYNC])[SYNC].is_due
    assert claims.claim(SYNC, 10).event_ids == []


def test_a_lease_that_lasts_longer_than_any_is_over(engine: Engine) -> None:
    lost = add_delivery(engine, SYNC, due_in=HOUR + LEASE, leased=True)
    add_delivery(engine, SYNC, due_in=LEASE, leased=True)
    claims = PostgresClaims(engine, LEASE)

    backlog = claims.survey([SYNC])[SYNC]
    claim = claims.claim(SYNC, 10)

    assert (backlog.leased, backlog.is_due) == (1, True)
    assert (claim.event_ids, claim.expired) == ([lost], 1)


def test_lost_leases_end_also_where_they_last_longer_than_they_were_given(engine: Engine) -> None:
    add_delivery(engine, SYNC, due_in=10 * LEASE, leased=True)
    add_delivery(engine, SYNC, due_in=LEASE, leased=True)

    assert PostgresClaims(engine, LEASE).end_lost_leases(SYNC) == 1


def test_a_claim_does_not_look_through_all_that_waits_for_a_retry(engine: Engine) -> None:
    run(
        engine,
        """INSERT INTO kratos_sync.deliveries
                  (event_id, consumer, subject, due_at, attempts, last_error)
           SELECT gen_random_uuid(), :consumer, gen_random_uuid(),
                  now() + i * interval '1 min', 1, 'OSError'
           FROM generate_series(1, 20000) i""",
        consumer=SYNC,
    )
    survey = SURVEY.text
    for name in ("consumers", "fresh", "leased", "soon"):
        survey = survey.replace(f":{name}", f"%({name})s")
    looked = {"consumers": [SYNC], "fresh": [None], "leased": [None], "soon": SOON}
    for statistics in (False, True):
        if statistics:
            run(engine, "ANALYZE kratos_sync.deliveries")
        assert pages(engine, survey, looked) < 50
        assert pages(engine, CLAIM, (SYNC, 10, LEASE, None, None)) < 50


def test_status_reports_how_far_apart_the_clocks_are_and_no_negative_lag(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_delivery(engine, SYNC, age=-HOUR, due_in=HOUR)
    set_our_clock(monkeypatch, -HOUR)

    report = PostgresStatus(engine).report([SYNC])

    assert abs(report.clock_ahead - HOUR) < LEASE
    consumer = next(each for each in report.consumers if each.name == SYNC)
    assert (consumer.due, consumer.waiting, consumer.lag) == (1, 0, timedelta())
