"""`kratos-sync audit`: the record of every changing command; stopping and resuming them."""

import getpass
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from click.testing import Result
from sqlalchemy import Engine

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.operations import (
    DEAD_AFTER,
    How,
    Operation,
    OperationFilter,
    OperationRequest,
    Outcome,
    Progress,
)
from kratos_sync.infrastructure.ledger.operations import PostgresOperations
from kratos_sync.infrastructure.ledger.purge import begin as begin_purge
from kratos_sync.infrastructure.migrations import newest_revision
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.api.cli.invoking import kratos_sync
from tests.end_to_end.canaries import Search
from tests.end_to_end.processes import KRATOS_SYNC
from tests.infrastructure.erasure.life import TRACE, Life
from tests.infrastructure.ledger.rows import A_MINUTE, add_event
from tests.infrastructure.ledger.test_dead_letters import fail
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.suites.ledgers import PostgresLedger
from tests.suites.operations import make_older
from tests.waiting import DEADLINE_SECONDS, until

pytestmark = pytest.mark.usefixtures("settings")

SYNC = SyncKratosIdentity.name
DAY = timedelta(days=1)
BY_ADA = ("--by", "ada")


@pytest.fixture
def operations(engine: Engine) -> PostgresOperations:
    return PostgresOperations(engine)


@pytest.fixture
def kratos(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryDocuments]:
    town = InMemoryDocuments()
    with AdminStandIn(town) as stand_in:
        monkeypatch.setenv("KRATOS_ADMIN_URL", stand_in.url)
        yield town


def recorded(operations: PostgresOperations) -> list[Operation]:
    return list(operations.newest(OperationFilter(), 99))


def newest(operations: PostgresOperations) -> Operation:
    return recorded(operations)[0]


def done(*command: str) -> Result:
    result = kratos_sync(*command)
    assert result.exit_code == 0, result.output
    return result


def await_beat(operations: PostgresOperations) -> None:
    seen = newest(operations).seen_at
    until(lambda: newest(operations).seen_at > seen)


def ten_operations(engine: Engine, kratos: InMemoryDocuments) -> Life:
    """One of each that changes something, by Ada, about a person with recognisable data."""
    life = Life(PostgresLedger(engine))
    life.live()
    fail(engine, error=f"KeyError: '{life.sign}'")
    fail(engine, error=f"KeyError: '{life.sign}'")
    add_event(engine, age=100 * DAY)
    kratos.put(life.document())
    known = kratos.put(person())
    why = (*BY_ADA, "--reason", "the mail server is back")
    done(
        "failed", "retry", "--all", "--consumer", "Greet", "--exception", "KeyError", *why, "--yes"
    )
    done("failed", "discard", "--all", *why, "--yes")
    done("replay", "--consumer", SYNC, "--since", "1h", "--identity", str(life.id), *why, "--yes")
    done("purge", *why)
    done("sync", str(known), *BY_ADA)
    done("reconcile", *why, "--allow-deletes", "5")
    done("pause", SYNC, *why)
    done("resume", SYNC, *BY_ADA)
    done("limit", SYNC, "--rate", "5/second", *BY_ADA)
    done("delete", str(known), *why, "--yes")
    done("erase", str(life.id), *why, "--yes", "--anyway")
    return life


def test_every_changing_command_is_recorded_with_who_what_why_and_the_outcome(
    engine: Engine, operations: PostgresOperations, kratos: InMemoryDocuments
) -> None:
    life = ten_operations(engine, kratos)
    rows = {each.operation: each for each in recorded(operations)}

    assert list(reversed(rows)) == [
        "retry",
        "discard",
        "replay",
        "purge",
        "sync",
        "reconcile",
        "pause",
        "resume",
        "limit",
        "delete",
        "erase",
    ]
    assert {each.by for each in rows.values()} == {"ada"}
    assert {each.how for each in rows.values()} == {How.CLI}
    assert {each.outcome for each in rows.values()} == {Outcome.COMPLETED}
    unexplained = {each.operation for each in rows.values() if each.reason is None}
    assert unexplained == {"sync", "resume", "limit"}
    assert (rows["retry"].consumer, rows["retry"].scope["exception"]) == ("Greet", "KeyError")
    assert (rows["retry"].done, rows["retry"].total) == (2, 2)
    assert (rows["replay"].consumer, rows["replay"].subject) == (SYNC, life.id)
    assert rows["purge"].result == {"events": 1, "attempts": 0}
    assert (rows["sync"].done, rows["sync"].result) == (1, {"updated": 1})
    assert rows["reconcile"].scope == {"allow_deletes": 5}
    assert rows["limit"].scope == {"rate": "5/second", "concurrency": None}
    assert rows["delete"].subject is not None
    assert rows["erase"].subject == life.id
    assert all(each.ended_at for each in rows.values())


def test_nothing_personal_is_in_the_record_or_in_what_is_shown_of_it(
    engine: Engine, operations: PostgresOperations, kratos: InMemoryDocuments
) -> None:
    life = ten_operations(engine, kratos)
    shown = {
        "table": done("audit").output,
        "JSON": done("audit", "--json").output,
        "status": done("status").output,
        "rows": repr(recorded(operations)),
    }
    search = Search({"sign": life.sign, "trace": TRACE, "dalia": "dalia@example.org"})
    assert search.found_in(shown) == []


def test_a_filter_that_might_be_an_address_is_not_recorded(
    engine: Engine, operations: PostgresOperations
) -> None:
    fail(engine, kind="ada@example.org")
    done("failed", "retry", "--all", "--exception", "ada@example.org", "--yes")
    assert newest(operations).scope["exception"] == "(not kept)"
    assert newest(operations).done == 1


def test_what_changes_nothing_is_not_recorded(
    engine: Engine, operations: PostgresOperations, kratos: InMemoryDocuments
) -> None:
    fail(engine)
    event_id = add_event(engine)
    for command in (
        ("failed", "retry", "--all", "--dry-run"),
        ("failed", "discard", "--all", "--dry-run", "--reason", "x"),
        ("failed", "retry", "--all", "--consumer", "Greet", "--since", "1s"),
        ("replay", "--consumer", SYNC, "--since", "1h", "--dry-run"),
        ("purge", "--dry-run"),
        ("reconcile", "--dry-run"),
        ("migrate",),
        ("status",),
        ("failed", "list"),
        ("audit",),
    ):
        done(*command)
    assert kratos_sync("failed", "retry", str(event_id), "--yes").exit_code == 1
    assert kratos_sync("failed", "discard", "--all", "--reason", "x").exit_code == 2
    assert recorded(operations) == []


def test_a_migration_is_recorded_once_there_is_a_record(
    empty_database_url: str, broker_url: str
) -> None:
    settings = {"DATABASE_URL": empty_database_url, "BROKER_URL": broker_url}
    kratos_sync("migrate", *BY_ADA, **settings)
    document = json.loads(kratos_sync("audit", "--json", **settings).stdout)
    first = document["operations"][-1]
    assert (first["operation"], first["by"], first["outcome"]) == ("migrate", "ada", "completed")
    assert first["scope"] == {"schema": "kratos_sync", "from": None, "to": newest_revision()}


def test_who_is_the_user_of_the_system_unless_a_name_is_given(
    operations: PostgresOperations,
) -> None:
    done("purge")
    assert newest(operations).by == getpass.getuser()


@pytest.mark.parametrize(
    ("option", "value"), [("--by", "a" * 201), ("--reason", "a" * 1_001), ("--reason", " ")]
)
def test_a_name_or_a_reason_that_is_too_long_is_wrong_use(option: str, value: str) -> None:
    assert kratos_sync("purge", option, value).exit_code == 2


def test_one_that_fails_says_by_what_kind_of_error(
    engine: Engine, operations: PostgresOperations
) -> None:
    with engine.begin() as connection:
        begin_purge(connection)
    assert kratos_sync("purge").exit_code == 1
    assert newest(operations).outcome is Outcome.FAILED
    assert newest(operations).result == {"error": "AnotherPurge"}
    assert "failed: AnotherPurge" in done("audit").stdout


# What is shown.


def test_without_operations_it_says_so() -> None:
    assert done("audit").stdout == "No operations.\n"
    document = json.loads(done("audit", "--json").stdout)
    assert document.pop("at")
    assert document == {"operations": [], "next_before": None}


def test_the_table_shows_the_newest_first_page_by_page(operations: PostgresOperations) -> None:
    for name in ("first", "second", "third"):
        operations.begin(OperationRequest("sync", name, How.CLI), uuid4())
    page = done("audit", "--limit", "2").stdout
    assert page.index("third") < page.index("second")
    assert "first" not in page
    before = page.rsplit("--before ", 1)[1].strip()
    last = done("audit", "--limit", "2", "--before", before).stdout
    assert "first" in last
    assert "second" not in last
    assert "--before" not in last
    assert json.loads(done("audit", "--limit", "2", "--json").stdout)["next_before"] == int(before)


def test_filters_narrow_it(engine: Engine, operations: PostgresOperations) -> None:
    old = operations.begin(OperationRequest("replay", "ada", How.CLI), uuid4())
    make_older(engine, 8 * DAY, old)
    young = operations.begin(OperationRequest("sync", "grace", How.CONSOLE), uuid4())

    def ids(*options: str) -> list[int]:
        document = json.loads(done("audit", "--json", *options).stdout)
        return [each["id"] for each in document["operations"]]

    assert ids() == [young, old]
    assert ids("--since", "7d") == [young]
    assert ids("--operation", "replay") == [old]
    assert ids("--by", "grace") == [young]
    assert ids("--running") == [young]
    assert "grace (console)" in done("audit").stdout


def test_a_long_reason_is_shown_in_part_and_is_whole_in_the_json() -> None:
    reason = "the mail server was away " * 30
    done("purge", "--reason", reason)
    table = done("audit").stdout
    assert "the mail server was away the mail server was" in table
    assert "…" in table
    assert reason.strip() not in table
    (shown,) = json.loads(done("audit", "--json").stdout)["operations"]
    assert shown["reason"] == reason.strip()


def test_the_json_has_the_documented_keys(operations: PostgresOperations) -> None:
    done("pause", SYNC, *BY_ADA, "--reason", "a migration")
    (document,) = json.loads(done("audit", "--json").stdout)["operations"]
    for name in ("id", "role", "started_at", "seen_at", "ended_at"):
        assert document.pop(name)
    assert document == {
        "operation": "pause",
        "by": "ada",
        "how": "cli",
        "reason": "a migration",
        "subject": None,
        "consumer": SYNC,
        "scope": {},
        "resumes": None,
        "outcome": "completed",
        "done": 0,
        "total": None,
        "result": {},
        "cancel_requested_by": None,
        "cancel_requested_at": None,
    }


def test_what_runs_is_in_the_status(engine: Engine, operations: PostgresOperations) -> None:
    runner = uuid4()
    request = OperationRequest("retry", "ada", How.CLI, consumer="Greet")
    number = operations.begin(request, runner, 4_000)
    operations.note(number, runner, Progress(1_200, 4_000))
    assert f"Operations   {number} retry by ada on Greet, 1,200 of 4,000, running" in (
        done("status").stdout
    )
    make_older(engine, 2 * DEAD_AFTER)
    assert f"interrupted, begun 1 min ago: `kratos-sync audit resume {number}` goes on" in (
        done("status").stdout
    )
    (shown,) = json.loads(done("status", "--json").stdout)["operations"]
    assert (shown["id"], shown["outcome"]) == (number, "interrupted")


# Stopping and resuming.


def test_a_request_to_cancel_is_recorded_with_who_made_it(operations: PostgresOperations) -> None:
    number = str(operations.begin(OperationRequest("replay", "ada", How.CLI), uuid4()))
    asking = ("audit", "cancel", number, "--reason", "it was the wrong day", "--by")
    assert "is asked to stop" in done(*asking, "grace").stdout
    assert "was asked before to stop" in done(*asking, "hedy").stdout
    again, stop, replay = recorded(operations)
    assert replay.cancel_requested_by == "grace"
    assert (stop.operation, stop.by, stop.scope) == ("stop", "grace", {"operation": replay.id})
    assert (stop.reason, stop.done, again.done) == ("it was the wrong day", 1, 0)
    assert "stopping for grace" in done("audit").stdout


def test_what_does_not_run_is_not_cancelled(engine: Engine, operations: PostgresOperations) -> None:
    done("purge")
    completed = str(newest(operations).id)
    assert "is completed." in kratos_sync("audit", "cancel", completed).stderr
    died = operations.begin(OperationRequest("replay", "ada", How.CLI), uuid4())
    make_older(engine, DAY, died)
    assert "is interrupted." in kratos_sync("audit", "cancel", str(died)).stderr
    assert "There is no operation 77." in kratos_sync("audit", "cancel", "77").stderr


@pytest.mark.parametrize(
    "command",
    [
        ("failed", "retry", "--all"),
        ("failed", "discard", "--all", "--reason", "too late"),
    ],
    ids=["retry", "discard"],
)
def test_a_decision_that_is_cancelled_stops_after_its_step_and_is_resumed(
    engine: Engine, operations: PostgresOperations, command: tuple[str, ...]
) -> None:
    @contextmanager
    def cancelling(_what: str, _total: int) -> Iterator[Callable[[int], None]]:
        def show(_done: int) -> None:
            operations.request_cancel(newest(operations).id, "grace")
            # Two beats: the first may have begun before the request.
            await_beat(operations)
            await_beat(operations)

        yield show

    for _ in range(5):
        fail(engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kratos_sync.application.operations.BEAT_SECONDS", 0.005)
        patch.setattr("kratos_sync.application.actions.STEP", 2)
        patch.setattr("kratos_sync.api.cli.process.progress", cancelling)
        result = kratos_sync(*command, "--yes", *BY_ADA)
    assert result.exit_code == 1
    assert "Cancelled by grace: 2 of 5 dead letters" in result.stderr
    cancelled = newest(operations)
    assert (cancelled.outcome, cancelled.done, cancelled.total) == (Outcome.CANCELLED, 2, 5)
    assert "cancelled by grace" in done("audit").stdout

    late = fail(engine, ago=timedelta())
    resumed = kratos_sync("audit", "resume", str(cancelled.id), "--by", "hedy", "--yes")
    assert resumed.exit_code == 0, resumed.output
    assert "was resumed: 3 done." in resumed.stdout
    assert (newest(operations).resumes, newest(operations).by) == (cancelled.id, "hedy")
    assert newest(operations).reason == cancelled.reason
    dead = [key for key, row in PostgresLedger(engine).deliveries.items() if row.is_dead]
    assert [event_id for _, event_id in dead] == [late]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_replay_whose_process_ends_is_interrupted_and_resumed_where_it_was(
    engine: Engine, operations: PostgresOperations, tmp_path: Path, number: int
) -> None:
    ids = [add_event(engine, age=age * A_MINUTE) for age in (5, 4, 3, 2)]
    command = ["replay", "--consumer", SYNC, "--since", "1h", "--rate", "1", "--yes", *BY_ADA]
    replaying = subprocess.Popen([*KRATOS_SYNC, *command], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        until(lambda: recorded(operations) and newest(operations).done)
    finally:
        os.kill(replaying.pid, number)
        replaying.wait(DEADLINE_SECONDS)
    if number == signal.SIGKILL:
        assert newest(operations).ended_at is None
        make_older(engine, 2 * DEAD_AFTER)
    interrupted = newest(operations)
    assert interrupted.outcome is Outcome.INTERRUPTED
    assert 0 < interrupted.done < len(ids)
    PostgresLedger(engine).query("DELETE FROM kratos_sync.deliveries")

    done("audit", "resume", str(interrupted.id), "--yes", *BY_ADA)

    resumed = newest(operations)
    assert (resumed.outcome, resumed.resumes) == (Outcome.COMPLETED, interrupted.id)
    at = datetime.fromisoformat(str(interrupted.result["go_on_since"]))
    assert datetime.fromisoformat(str(resumed.scope["since"])) == at
    # From the last event on that was known to be replayed.
    assert resumed.done == len(ids) - interrupted.done + 1
    again = {event_id for _, event_id in PostgresLedger(engine).deliveries}
    assert again == set(ids[interrupted.done - 1 :])
    assert [each.outcome for each in recorded(operations)] == [
        Outcome.COMPLETED,
        Outcome.INTERRUPTED,
    ]


def test_an_outcome_is_recorded_once_the_database_is_back(
    engine: Engine, operations: PostgresOperations, postgres_url: str
) -> None:
    for _ in range(3):
        fail(engine)
    name = engine.url.database

    def ask(statement: str) -> None:
        with psycopg.connect(postgres_url, autocommit=True) as administrator:
            administrator.execute(statement.encode())

    def go_away(_done: int) -> None:
        ask(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        back = f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"
        threading.Timer(1, ask, [back]).start()

    @contextmanager
    def going_away(_what: str, _total: int) -> Iterator[Callable[[int], None]]:
        yield go_away

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kratos_sync.api.cli.process.progress", going_away)
        result = kratos_sync("failed", "retry", "--all", "--yes")
    assert result.exit_code == 1
    assert "PostgreSQL" in result.stderr
    failed = newest(operations)
    assert (failed.outcome, failed.done) == (Outcome.FAILED, 3)
    assert failed.result == {"error": "LedgerUnavailable"}
    assert "was resumed: 0 done." in done("audit", "resume", str(failed.id), "--yes").stdout


def test_a_purge_that_died_is_resumed_once(engine: Engine, operations: PostgresOperations) -> None:
    add_event(engine, age=100 * DAY)
    scope = {"events_older_than": (90 * DAY).total_seconds()}
    died = operations.begin(OperationRequest("purge", "ada", How.CLI, scope=scope), uuid4())
    assert "is running." in kratos_sync("audit", "resume", str(died), "--yes").stderr
    make_older(engine, DAY, died)

    assert "was resumed: 1 done." in done("audit", "resume", str(died), "--yes").stdout
    again = kratos_sync("audit", "resume", str(died), "--yes")
    assert (again.exit_code, again.stderr) == (
        1,
        f"Error: Not done: operation {died} cannot be resumed.\n",
    )
    assert len(recorded(operations)) == 2


def test_what_cannot_be_resumed_says_what_to_do_instead(
    engine: Engine, operations: PostgresOperations
) -> None:
    died = operations.begin(OperationRequest("sync", "ada", How.CLI), uuid4())
    scope = {"exception": "(not kept)"}
    unknown = operations.begin(OperationRequest("retry", "ada", How.CLI, scope=scope), uuid4())
    make_older(engine, DAY)
    result = kratos_sync("audit", "resume", str(died), "--yes")
    assert (result.exit_code, result.stderr) == (1, "Error: Repeat `kratos-sync sync` instead.\n")
    result = kratos_sync("audit", "resume", str(unknown), "--yes")
    assert result.exit_code == 1
    assert "its filter was not recorded" in result.stderr
    assert len(recorded(operations)) == 2


def test_without_a_terminal_a_resumption_needs_yes(
    engine: Engine, operations: PostgresOperations
) -> None:
    died = operations.begin(OperationRequest("purge", "ada", How.CLI), uuid4())
    make_older(engine, DAY)
    assert kratos_sync("audit", "resume", str(died)).exit_code == 2
    assert len(recorded(operations)) == 1
