import json
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from kratos_sync.api.cli.status import print_report
from kratos_sync.application.ports.purge import PastPurge, Removed, Retention
from kratos_sync.application.ports.status import (
    BrokerStatus,
    ConsumerStatus,
    Count,
    Failover,
    Holder,
    StatusReport,
    Storage,
    UnknownEvents,
)
from kratos_sync.infrastructure.ledger.purge import PostgresPurge
from kratos_sync.infrastructure.migrations import newest_revision
from tests.api.cli.invoking import kratos_sync
from tests.environment import subscriptions
from tests.infrastructure.ledger.rows import A_MINUTE, add_delivery, add_identity, log_attempt

NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
QUIET = BrokerStatus({})
RETENTION = Retention(timedelta(days=90), None)
EMPTY = Storage()
SEVEN = Count(7)
NAMES = list(subscriptions().consumers)
NOWHERE = "redis://:secret@127.0.0.1:1/0"
GREET = ConsumerStatus("Greet", known=True, last_success_at=NOW - timedelta(seconds=4.2))


@pytest.fixture(autouse=True)
def _nothing_in_dot_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def reported(
    capsys: pytest.CaptureFixture[str],
    *consumers: ConsumerStatus,
    broker: BrokerStatus = QUIET,
    unknown_events: tuple[UnknownEvents, ...] = (),
    events: Count = SEVEN,
    storage: Storage = EMPTY,
    needed_revision: str = "0001",
    clock_ahead: timedelta = timedelta(),
    unsafe: tuple[str, ...] = (),
    failover: Failover | None = None,
) -> str:
    report = StatusReport(
        at=NOW,
        revision="0001",
        needed_revision=needed_revision,
        alive=Count(1_204),
        deleted=Count(3),
        events=events,
        attempts=Count(9),
        consumers=consumers,
        unknown_events=unknown_events,
        storage=storage,
        clock_ahead=clock_ahead,
        unsafe=unsafe,
        failover=failover,
    )
    print_report(report, broker, RETENTION)
    return capsys.readouterr().out


def row(output: str, consumer: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.startswith(consumer)]
    return re.split(r"\s{2,}", line.strip())


def test_when_all_is_well_it_says_so_first(capsys: pytest.CaptureFixture[str]) -> None:
    output = reported(capsys, GREET)
    assert output.splitlines()[2] == "All is well."
    assert "1,204 alive, 3 deleted" in output
    assert row(output, "Greet") == ["Greet", "0", "0", "0", "0", "-", "4.2 s ago", "ok"]


def test_without_colours_words_say_what_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    behind = ConsumerStatus("Greet", True, 5, 2, 1, failed=2, lag=HOUR)
    output = reported(capsys, behind)
    assert "\x1b" not in output
    assert "Greet is behind: 8 deliveries pending (1 waiting for a retry)" in output
    assert "the oldest for 1 h." in output
    assert "Greet has 2 dead letters" in output
    assert "`kratos-sync failed list` shows why." in output
    assert row(output, "Greet")[1:] == [
        "8",
        "2",
        "1",
        "2",
        "1 h",
        "-",
        "behind, retrying, dead letters",
    ]


@pytest.mark.parametrize(
    ("failover", "sentences"),
    [
        (
            Failover(NOW - HOUR, 2, 1, is_same_cluster=True),
            "PostgreSQL failed over 1 h ago, or was restored: it is on timeline 2 after 1. What was"
            " committed there may be missing. `kratos-sync reconcile` finds them.",
        ),
        (
            Failover(NOW - HOUR, 3, 2, True, NOW - HOUR, 12_345),
            "12 kB of what was committed after 20",
        ),
        (
            Failover(NOW - HOUR, 1, 1, is_same_cluster=False),
            "The ledger moved to another PostgreSQL 1 h ago, as a restored dump does.",
        ),
    ],
)
def test_a_failover_is_reported_with_the_command_to_run(
    capsys: pytest.CaptureFixture[str], failover: Failover, sentences: str
) -> None:
    output = reported(capsys, GREET, failover=failover)

    assert sentences in " ".join(output.split())


def test_a_lag_of_seconds_needs_no_attention(capsys: pytest.CaptureFixture[str]) -> None:
    assert "All is well." in reported(capsys, ConsumerStatus("Greet", True, due=1, lag=A_MINUTE))


def test_a_consumer_of_another_release_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    output = reported(capsys, ConsumerStatus("Tickle", known=False, due=1))
    assert "Tickle is not known to this release: its pending deliveries are kept" in output
    assert row(output, "Tickle")[-1] == "not known"


def test_an_event_of_another_release_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    merged = UnknownEvents("kratos_identity.merged", 1_200, HOUR)
    output = reported(capsys, GREET, unknown_events=(merged,))
    assert "kratos_identity.merged is not known to this release: 1,200 deliveries" in output


def test_a_broker_that_is_down_needs_attention(capsys: pytest.CaptureFixture[str]) -> None:
    output = reported(capsys, GREET, broker=BrokerStatus({}, "TimeoutError"))
    assert "The broker does not answer (TimeoutError)" in output
    assert "DOWN (TimeoutError)" in output


def test_a_broker_in_the_memory_of_another_process_is_not_taken_for_one_that_is_down(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = reported(capsys, GREET, broker=BrokerStatus({}, is_asked=False))
    assert "does not answer" not in output
    assert "Broker       in the memory of `kratos-sync all`; it holds what is LEASED" in output


def test_a_broker_whose_queues_are_not_known_is_not_taken_for_one_that_is_down(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unknown = BrokerStatus({}, "The role lacks a right: run `kratos-sync migrate`", is_asked=False)
    output = reported(capsys, GREET, broker=unknown)
    assert "The broker is not asked. The role lacks a right: run" in output
    assert "Broker       not asked" in output


def test_messages_waiting_at_the_broker_are_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = reported(capsys, GREET, broker=BrokerStatus({"Greet": 0, "Count": 1_200}))
    assert "messages waiting: Count 1,200\n" in re.sub(" +\n", "\n", output)


def test_estimates_say_so_and_give_no_false_digits(capsys: pytest.CaptureFixture[str]) -> None:
    output = reported(capsys, GREET, events=Count(1_996_060, estimated=True))
    assert "about 2,000,000 events, 9 attempts" in output


@pytest.mark.parametrize(
    ("ahead", "sentence"),
    [
        (HOUR, "is 1 h ahead of this machine's: set the one that is wrong. Nothing is purged"),
        (-HOUR, "is 1 h behind this machine's: set the one that is wrong. Nothing is purged"),
        (2 * A_MINUTE, "is 2 min ahead of this machine's: set the one that is wrong."),
    ],
)
def test_clocks_that_differ_need_attention(
    capsys: pytest.CaptureFixture[str], ahead: timedelta, sentence: str
) -> None:
    output = " ".join(reported(capsys, GREET, clock_ahead=ahead).split())
    assert f"The database's clock {sentence}" in output
    assert ("Nothing is purged" in output) == (abs(ahead) >= HOUR)


def test_clocks_that_are_seconds_apart_need_no_attention(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "All is well." in reported(capsys, GREET, clock_ahead=A_MINUTE / 2)


def test_a_purge_by_a_clock_that_was_ahead_is_marked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    storage = Storage(last_purge=PastPurge(NOW + HOUR, NOW + HOUR, Removed(7)))
    output = reported(capsys, GREET, storage=storage)
    assert "by a clock that was ahead, 2026-07-01 13:00:00 UTC: 7 events" in output


def test_sizes_retention_and_the_last_purge_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables = {"events": 1_200_000_000, "attempts": 300_000_000}
    purged = PastPurge(NOW - HOUR, NOW - HOUR + A_MINUTE, Removed(1_204, 1))
    storage = Storage(tables, NOW - timedelta(days=80), None, purged)
    output = reported(capsys, GREET, storage=storage)
    assert "1.5 GB: events 1.2 GB, attempts 300 MB" in output
    assert "events for 90 d, since 2026-04-12 12:00:00 UTC; attempts for ever" in output
    assert "1 h ago: 1,204 events, 1 attempt removed" in output


def test_before_the_first_purge_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "none yet" in reported(capsys, GREET)


def test_a_purge_that_runs_or_was_killed_has_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    storage = Storage(last_purge=PastPurge(NOW - A_MINUTE, None, Removed(7)))
    assert "1 min ago, not ended: 7 events, 0 attempts" in reported(capsys, GREET, storage=storage)


@pytest.mark.parametrize(
    ("holder", "sentence"),
    [
        (
            Holder("transaction", "4711", "psql", HOUR, 12),
            "The transaction of process 4711 (psql), open for 1 h, keeps PostgreSQL from reusing",
        ),
        (
            Holder("transaction", "4711", None, None, 250_000),
            "The transaction of process 4711 (no name), 250,000 transactions old, keeps",
        ),
        (
            Holder("prepared transaction", "two-phase", None, HOUR, 12),
            "The prepared transaction two-phase, open for 1 h, keeps",
        ),
        (
            Holder("replication slot", "standby", None, None, 250_000),
            "The replication slot standby, 250,000 transactions old, keeps",
        ),
    ],
)
def test_what_makes_tables_grow_needs_attention(
    capsys: pytest.CaptureFixture[str], holder: Holder, sentence: str
) -> None:
    output = reported(capsys, GREET, storage=Storage(holders=(holder,)))
    assert "Needs attention:" in output
    assert sentence in output


@pytest.mark.parametrize("risk", ["fsync", "full_page_writes", "asynchronous_standby"])
def test_what_may_lose_commits_needs_attention(
    capsys: pytest.CaptureFixture[str], risk: str
) -> None:
    output = reported(capsys, GREET, unsafe=(risk,))
    assert "Needs attention" in output
    assert {"asynchronous_standby": "synchronous_standby_names"}.get(risk, risk) in output


def test_a_schema_newer_than_needed_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert "newer than the 0000" in reported(capsys, needed_revision="0000")


def test_a_long_name_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    name = "NotifyEverybodyWhoMightConceivablyWantToHearOfItOneDayOrAnother"
    assert name in reported(capsys, ConsumerStatus(name, known=True))


def test_the_json_has_the_documented_keys(
    engine: Engine, database_url: str, broker_url: str
) -> None:
    add_identity(engine)
    name = NAMES[0]
    log_attempt(engine, name)
    merged = "UnknownEvent: kratos_identity.merged"
    add_delivery(
        engine, name, age=HOUR, due_in=A_MINUTE, last_error=merged, error_type="UnknownEvent"
    )
    PostgresPurge(engine).run(RETENTION, threading.Event(), lambda _: None)
    result = kratos_sync(
        "status",
        "--json",
        DATABASE_URL=database_url,
        BROKER_URL=broker_url,
        EVENTS_RETENTION_DAYS="forever",
    )
    assert result.exit_code == 0
    document, newest = json.loads(result.stdout), newest_revision()
    assert datetime.fromisoformat(document.pop("at")).tzinfo is UTC
    assert document.pop("schema") == {"revision": newest, "needed": newest}
    assert document.pop("broker") == {"answers": True, "error": None}
    assert document.pop("unsafe") == []
    assert document.pop("failover") is None
    assert document.pop("identities") == {"alive": 1, "deleted": 0, "estimated": False}
    assert document.pop("events") == {"recorded": 1, "estimated": False}
    assert document.pop("attempts") == {"recorded": 1, "estimated": False}
    assert document.pop("template_failures") == []
    (unknown,) = document.pop("unknown_events")
    assert (unknown.pop("name"), unknown.pop("deliveries")) == ("kratos_identity.merged", 1)
    assert 3_600 <= unknown.pop("oldest_seconds") < 3_700
    consumer, *others = document.pop("consumers")
    assert [consumer["name"], *(other["name"] for other in others)] == NAMES
    assert 3_600 <= consumer.pop("lag_seconds") < 3_700
    assert isinstance(consumer.pop("messages"), int)
    assert datetime.fromisoformat(consumer.pop("last_success_at")).tzinfo is UTC
    assert consumer == {
        "name": name,
        "known": True,
        "backlog": 1,
        "due": 0,
        "dispatched": 0,
        "waiting": 1,
        "postponed": 0,
        "failed": 0,
        "last_error": None,
        "paused": None,
        "events": ["kratos_identity.updated"],
    }
    storage = document.pop("storage")
    assert storage["bytes"] == sum(storage["tables"].values()) > 0
    assert {"events", "deliveries", "attempts", "purges"} <= storage["tables"].keys()
    assert datetime.fromisoformat(storage["oldest_event_at"]) < datetime.now(UTC) - A_MINUTE
    assert storage["oldest_attempt_at"] is not None
    assert storage["retention"] == {"events_seconds": None, "attempts_seconds": 2_592_000.0}
    assert storage["last_purge"].keys() == {"started_at", "ended_at", "events", "attempts"}
    assert storage["held_by"] == []
    assert not unknown
    drift = {"running": False, "rise": None, "reconciliations": []}
    assert document.pop("drift") == drift
    assert document.pop("hooks") == []
    assert document.pop("operations") == []
    assert abs(document.pop("clock_ahead_seconds")) < 60
    assert not document


def test_a_broker_that_is_down_does_not_fail_status(database_url: str) -> None:
    result = kratos_sync("status", "--json", DATABASE_URL=database_url, BROKER_URL=NOWHERE)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["broker"] == {"answers": False, "error": "ConnectionError"}
    assert {consumer["messages"] for consumer in document["consumers"]} == {None}
    assert "secret" not in result.output


def test_the_report_has_no_personal_data(
    engine: Engine, database_url: str, broker_url: str
) -> None:
    add_identity(engine)
    add_delivery(engine, "Greet", attempts=1, last_error="KeyError: 'dalia@example.org'")
    for options in ([], ["--json"]):
        result = kratos_sync("status", *options, DATABASE_URL=database_url, BROKER_URL=broker_url)
        assert result.exit_code == 0
        assert "Greet" in result.output
        assert "dalia" not in result.output


@pytest.mark.parametrize(
    "command", [["status"], ["history", "0199e6a0-0000-7000-8000-00000000da1a"]]
)
def test_without_its_tables_it_fails_in_one_line(
    command: list[str], empty_database_url: str, broker_url: str
) -> None:
    result = kratos_sync(*command, DATABASE_URL=empty_database_url, BROKER_URL=broker_url)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "kratos-sync migrate" in line


@pytest.mark.parametrize(
    "command", [["status"], ["history", "0199e6a0-0000-7000-8000-00000000da1a"]]
)
def test_without_a_database_it_fails_in_one_line_without_the_password(
    command: list[str], broker_url: str
) -> None:
    away = "postgresql://dalia:secret@127.0.0.1:1/nothing"
    result = kratos_sync(*command, DATABASE_URL=away, BROKER_URL=broker_url)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "PostgreSQL" in line
    assert "secret" not in line


def test_settings_that_are_missing_are_named() -> None:
    result = kratos_sync("status", DATABASE_URL=None, BROKER_URL="kafka://broker")
    assert result.exit_code == 2
    assert "DATABASE_URL" in result.stderr
    assert "BROKER_URL" in result.stderr
