"""Retrying and discarding dead letters at the command line."""

import getpass
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from click.testing import Result
from sqlalchemy import Engine, text

from kratos_sync.infrastructure.ledger.notifications import CHANNEL
from tests.api.cli.invoking import kratos_sync
from tests.infrastructure.ledger.test_dead_letters import fail
from tests.suites.ledgers import PostgresLedger
from tests.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.usefixtures("settings")

RETRY = ("retry",)
DISCARD = ("discard", "--reason", "too late")
BOTH = pytest.mark.parametrize("verb", [RETRY, DISCARD], ids=["retry", "discard"])
Verb = tuple[str, ...]


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


def failed(verb: Verb, *arguments: str, typed: str | None = None) -> Result:
    return kratos_sync("failed", *verb, *arguments, typed=typed)


def dead(ledger: PostgresLedger) -> int:
    return sum(delivery.is_dead for delivery in ledger.deliveries.values())


@BOTH
def test_all_retries_or_discards_every_dead_letter(
    engine: Engine, ledger: PostgresLedger, verb: Verb
) -> None:
    for _ in range(3):
        fail(engine)
    result = failed(verb, "--all", "--yes")
    assert result.exit_code == 0
    assert "3 dead letters in 1 group:" in result.stdout
    assert result.stdout.endswith("ed 3 dead letters.\n")
    assert dead(ledger) == 0
    assert len(ledger.attempts) == 3


@BOTH
def test_a_dry_run_says_what_matches_and_changes_nothing(
    engine: Engine, ledger: PostgresLedger, verb: Verb
) -> None:
    fail(engine)
    result = failed(verb, "--all", "--dry-run")
    assert result.exit_code == 0
    assert "1 dead letter in 1 group:" in result.stdout
    assert "A dry run: nothing was" in result.stdout
    assert (dead(ledger), ledger.attempts) == (1, [])


@BOTH
def test_without_a_terminal_it_needs_yes(
    engine: Engine, ledger: PostgresLedger, verb: Verb
) -> None:
    fail(engine)
    result = failed(verb, "--all")
    assert result.exit_code == 2
    assert "nothing was done: without a terminal to ask at, say --yes" in result.stderr
    assert (dead(ledger), ledger.attempts) == (1, [])


@BOTH
@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_what_is_not_confirmed_is_not_done(
    engine: Engine,
    ledger: PostgresLedger,
    monkeypatch: pytest.MonkeyPatch,
    verb: Verb,
    answer: str,
) -> None:
    monkeypatch.setattr("kratos_sync.api.cli.options.is_at_terminal", lambda: True)
    fail(engine)
    result = failed(verb, "--all", typed=answer)
    assert result.exit_code == 1
    assert "1 dead letter? [y/N]" in result.stderr
    assert (dead(ledger), ledger.attempts) == (1, [])


@BOTH
def test_what_is_confirmed_is_done(
    engine: Engine, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch, verb: Verb
) -> None:
    monkeypatch.setattr("kratos_sync.api.cli.options.is_at_terminal", lambda: True)
    fail(engine)
    assert failed(verb, "--all", typed="y\n").exit_code == 0
    assert dead(ledger) == 0


@BOTH
def test_a_filter_touches_only_what_it_names(
    engine: Engine, ledger: PostgresLedger, verb: Verb
) -> None:
    rude = fail(engine, kind="greet.Rudeness")
    fail(engine)
    fail(engine, "Count", kind="greet.Rudeness")
    options = ("--consumer", "Greet", "--exception", "Rudeness", "--since", "1h")
    assert failed(verb, "--all", "--yes", *options).exit_code == 0
    assert dead(ledger) == 2
    assert [attempt.event_id for attempt in ledger.attempts] == [rude]


@BOTH
def test_one_event_is_decided_on_by_its_id(
    engine: Engine, ledger: PostgresLedger, verb: Verb
) -> None:
    event_id = fail(engine)
    fail(engine)
    assert failed(verb, str(event_id), "--yes").exit_code == 0
    assert [attempt.event_id for attempt in ledger.attempts] == [event_id]


@BOTH
def test_an_event_that_failed_at_several_consumers_needs_a_consumer(
    engine: Engine, ledger: PostgresLedger, verb: Verb
) -> None:
    event_id = fail(engine)
    fail(engine, "Count", event_id)
    result = failed(verb, str(event_id), "--yes")
    assert result.exit_code == 2
    assert "failed at Count, Greet: say which with --consumer" in result.stderr
    assert failed(verb, str(event_id), "--yes", "--consumer", "Count").exit_code == 0
    assert [attempt.consumer for attempt in ledger.attempts] == ["Count"]


@BOTH
def test_an_event_that_has_not_failed_is_a_failure(verb: Verb) -> None:
    event_id = str(uuid4())
    result = failed(verb, event_id, "--yes")
    assert result.exit_code == 1
    assert f"There is no dead letter of the event {event_id}." in result.stderr


@BOTH
def test_without_matches_it_succeeds_without_a_question(verb: Verb) -> None:
    result = failed(verb, "--all")
    assert (result.exit_code, result.stdout) == (0, "No dead letters.\n")


@BOTH
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--consumer", "Greet"],
        ["--all", str(uuid4())],
        [str(uuid4()), "--since", "1h"],
        [str(uuid4()), "--event", "e"],
    ],
)
def test_it_takes_either_an_event_id_or_all(verb: Verb, arguments: list[str]) -> None:
    assert failed(verb, "--yes", *arguments).exit_code == 2


@pytest.mark.parametrize("reason", [[], ["--reason", " "]])
def test_a_discard_needs_a_reason(engine: Engine, reason: list[str]) -> None:
    fail(engine)
    result = failed(("discard",), "--all", "--yes", *reason)
    assert result.exit_code == 2
    assert "--reason" in result.stderr


def test_the_decision_is_by_the_user_unless_a_name_is_given(
    engine: Engine, ledger: PostgresLedger
) -> None:
    first, second = fail(engine), fail(engine)
    failed(DISCARD, str(first), "--yes")
    failed(DISCARD, str(second), "--yes", "--by", "ada")
    assert [attempt.error for attempt in ledger.attempts] == [
        f"Discarded by {getpass.getuser()}: too late",
        "Discarded by ada: too late",
    ]


@BOTH
def test_the_decision_is_logged_in_one_line_without_personal_data(
    engine: Engine, verb: Verb
) -> None:
    for _ in range(2):
        fail(engine)
    arguments = (*verb, "--all", "--yes", "--by", "ada", "--json")
    result = kratos_sync("failed", *arguments, LOG_FORMAT="json")
    lines = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line["event"] == "dead_letters_decided_on"]
    assert line.pop("timestamp")
    assert line == {
        "event": "dead_letters_decided_on",
        "level": "info",
        "decision": "retried" if verb == RETRY else "discarded",
        "by": "ada",
        "reason": None if verb == RETRY else "too late",
        "consumers": ["Greet"],
        "deliveries": 2,
    }


def test_a_retry_wakes_the_relay(engine: Engine, database_url: str) -> None:
    import psycopg

    fail(engine)
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        failed(RETRY, "--all", "--yes")
        notified = list(listener.notifies(timeout=DEADLINE_SECONDS, stop_after=1))
    assert [notice.channel for notice in notified] == [CHANNEL]


@BOTH
def test_locked_dead_letters_are_left_and_counted(
    engine: Engine, ledger: PostgresLedger, verb: Verb
) -> None:
    locked = fail(engine)
    fail(engine)
    lock = text("SELECT 1 FROM kratos_sync.deliveries WHERE event_id = :id FOR UPDATE")
    with engine.begin() as connection:
        connection.execute(lock, {"id": locked})
        result = failed(verb, "--all", "--yes")
        document = json.loads(failed(verb, "--all", "--yes", "--json").stdout)
    assert result.exit_code == 0
    assert "1 dead letter. 1 left as they were: somebody else has them locked." in result.stdout
    assert (document["done"], document["left"]) == (0, 1)
    assert dead(ledger) == 1


@BOTH
def test_an_interruption_keeps_finished_steps_and_reports_their_number(
    engine: Engine, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch, verb: Verb
) -> None:
    @contextmanager
    def interrupting(what: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda done: os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("kratos_sync.application.actions.STEP", 2)
    monkeypatch.setattr("kratos_sync.api.cli.process.progress", interrupting)
    for _ in range(5):
        fail(engine)
    result = failed(verb, "--all", "--yes", "--json")
    assert result.exit_code == 1
    assert "Interrupted: 2 of 5 dead letters" in result.stderr
    document = json.loads(result.stdout)
    assert (document["done"], document["left"], document["interrupted"]) == (2, 3, True)
    assert dead(ledger) == 3
    assert len(ledger.attempts) == 2


def test_a_retry_keeps_to_its_rate(
    engine: Engine, ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []
    monkeypatch.setattr(
        "kratos_sync.infrastructure.worker.shutdown.ShutdownSignals.pause",
        lambda self, seconds: paused.append(seconds),
    )
    for _ in range(5):
        fail(engine)
    assert failed(RETRY, "--all", "--yes", "--rate", "8").exit_code == 0
    assert dead(ledger) == 0
    assert sum(paused) > 0.3  # three steps, each less the little that it took


def test_the_json_has_the_documented_keys(engine: Engine) -> None:
    fail(engine)
    result = failed(DISCARD, "--all", "--yes", "--json", "--by", "ada")
    document = json.loads(result.stdout)
    assert list(document)[:3] == ["dead_letters", "groups_in_all", "groups"]
    assert {key: document[key] for key in list(document)[3:]} == {
        "dry_run": False,
        "by": "ada",
        "done": 1,
        "left": 0,
        "interrupted": False,
    }
    assert "1 dead letter in 1 group:" in result.stderr
