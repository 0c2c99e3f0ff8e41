"""Replaying at the command line."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest
from click.testing import Result
from sqlalchemy import Engine

from kratos_sync.api.cli import process
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.infrastructure.ledger.notifications import CHANNEL
from tests.api.cli.invoking import kratos_sync
from tests.infrastructure.ledger.rows import (
    A_MINUTE,
    SOMEBODY,
    add_delivery,
    add_event,
    log_attempt,
)
from tests.suites.ledgers import PostgresLedger
from tests.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.usefixtures("settings")

SYNC = SyncKratosIdentity.name


def replay(*arguments: str, typed: str | None = None) -> Result:
    return kratos_sync(
        "replay", "--consumer", SYNC, "--since", "1h", "--rate", "100000", *arguments, typed=typed
    )


def pending(engine: Engine) -> set[UUID]:
    return {event_id for _, event_id in PostgresLedger(engine).deliveries}


def test_recorded_events_are_pending_again_and_counted(engine: Engine) -> None:
    ids = {add_event(engine, age=age * A_MINUTE) for age in (1, 2, 70)}
    ids.add(add_delivery(engine, SYNC, age=A_MINUTE))
    result = replay("--yes")
    assert result.exit_code == 0
    assert "3 events kratos_identity.updated, recorded from " in result.stdout
    assert "Replayed 2 events. 1 left as they were: pending, or dead letters." in result.stdout
    assert len(pending(engine)) == 3


def test_only_events_of_one_identity_are_replayed(engine: Engine) -> None:
    hers = add_event(engine, age=A_MINUTE)
    add_event(engine, age=A_MINUTE, subject=uuid4())
    assert replay("--yes", "--identity", str(SOMEBODY)).exit_code == 0
    assert pending(engine) == {hers}


def test_only_the_events_that_are_named_are_replayed(engine: Engine) -> None:
    ids = [add_event(engine, age=A_MINUTE) for _ in range(3)]
    replay("--yes", "--event-id", str(ids[0]), "--event-id", str(ids[2]))
    assert pending(engine) == {ids[0], ids[2]}


def test_only_events_with_an_outcome_at_a_consumer_are_replayed(engine: Engine) -> None:
    ids = [add_event(engine, age=A_MINUTE) for _ in range(2)]
    log_attempt(engine, SYNC, ids[1], outcome="postponed")
    result = replay("--yes", "--outcome", "postponed", "--of-consumer", SYNC)
    assert f"1 event kratos_identity.updated of the outcome postponed at {SYNC}" in result.stdout
    assert pending(engine) == {ids[1]}


def test_until_ends_the_range(engine: Engine) -> None:
    old = add_event(engine, age=3 * A_MINUTE)
    add_event(engine, age=A_MINUTE)
    assert replay("--yes", "--until", "2min").exit_code == 0
    assert pending(engine) == {old}


def test_the_relay_is_woken(engine: Engine, database_url: str) -> None:
    import psycopg

    add_event(engine, age=A_MINUTE)
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        replay("--yes")
        notified = list(listener.notifies(timeout=DEADLINE_SECONDS, stop_after=1))
    assert [notice.channel for notice in notified] == [CHANNEL]


def test_a_dry_run_counts_and_changes_nothing(engine: Engine) -> None:
    add_event(engine, age=A_MINUTE)
    result = replay("--dry-run")
    assert result.exit_code == 0
    assert "1 event kratos_identity.updated" in result.stdout
    assert "A dry run: nothing was replayed." in result.stdout
    assert pending(engine) == set()


def test_without_a_terminal_it_needs_yes(engine: Engine) -> None:
    add_event(engine, age=A_MINUTE)
    result = replay()
    assert result.exit_code == 2
    assert "nothing was done" in result.stderr
    assert pending(engine) == set()


@pytest.mark.parametrize(("answer", "number"), [("y\n", 1), ("n\n", 0), ("\n", 0)])
def test_what_is_not_confirmed_is_not_done(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, answer: str, number: int
) -> None:
    monkeypatch.setattr("kratos_sync.api.cli.options.is_at_terminal", lambda: True)
    add_event(engine, age=A_MINUTE)
    assert replay(typed=answer).exit_code == 1 - number
    assert len(pending(engine)) == number


def test_without_matches_nothing_is_asked() -> None:
    result = replay()
    assert result.exit_code == 0
    assert "0 events" in result.stdout
    assert result.stdout.endswith(": nothing to replay.\n")


def test_an_unknown_consumer_is_wrong_use() -> None:
    result = kratos_sync("replay", "--consumer", "Greet", "--since", "1h", "--yes")
    assert result.exit_code == 2
    assert "there is no consumer Greet: there are SyncKratosIdentity, " in result.stderr


def test_an_event_that_the_consumer_is_not_subscribed_to_is_wrong_use() -> None:
    result = replay("--event", "identity.registered", "--yes")
    assert result.exit_code == 2
    assert (
        "is not subscribed to identity.registered, but to kratos_identity.updated" in result.stderr
    )


@pytest.mark.parametrize("arguments", [["--until", "2h"], ["--rate", "0"], ["--since", "soon"]])
def test_wrong_use_has_its_own_exit_code(arguments: list[str]) -> None:
    assert replay(*arguments).exit_code == 2


def test_an_interruption_says_where_to_resume(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def interrupting(what: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda done: os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(process, "progress", interrupting)
    ids = [add_event(engine, age=age * A_MINUTE) for age in (4, 3, 2)]
    result = replay("--yes", "--rate", "4", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["replayed"], document["interrupted"]) == (1, True)
    times = {
        row["id"]: row["recorded_at"]
        for row in PostgresLedger(engine).query("SELECT id, recorded_at FROM kratos_sync.events")
    }
    since, until = document["go_on_since"], document["until"]
    assert since == times[ids[0]].isoformat().replace("+00:00", "Z")
    assert f"Interrupted. The same command goes on with --since {since} --until {until}" in (
        result.stderr
    )


def test_after_an_interruption_the_rest_is_replayed_from_there(engine: Engine) -> None:
    ids = [add_event(engine, age=age * A_MINUTE) for age in (4, 3, 2)]
    (row,) = PostgresLedger(engine).query(
        "SELECT recorded_at FROM kratos_sync.events WHERE id = :id", id=ids[1]
    )
    since = row["recorded_at"].isoformat()
    kratos_sync("replay", "--consumer", SYNC, "--since", since, "--yes")
    assert pending(engine) == set(ids[1:])


def test_the_json_has_the_documented_keys(engine: Engine) -> None:
    add_event(engine, age=A_MINUTE)
    result = replay("--yes", "--json")
    document = json.loads(result.stdout)
    assert document.pop("since") < document.pop("until")
    assert document == {
        "consumer": SYNC,
        "names": ["kratos_identity.updated"],
        "identity_id": None,
        "source": None,
        "hook": None,
        "trace_id": None,
        "outcome": None,
        "of_consumer": None,
        "event_ids": [],
        "events": 1,
        "dry_run": False,
        "replayed": 1,
        "left": 0,
        "interrupted": False,
        "go_on_since": None,
    }
    assert "1 event kratos_identity.updated" in result.stderr
