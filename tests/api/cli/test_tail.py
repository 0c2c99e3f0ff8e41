"""`kratos-sync tail`: what happens, as it happens."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from kratos_sync.api.cli import watching
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.infrastructure.ledger.activity import PostgresActivity
from tests.api.cli.invoking import kratos_sync
from tests.environment import subscriptions
from tests.infrastructure.ledger.rows import SOMEBODY, add_event, log_attempt
from tests.waiting import DEADLINE_SECONDS, until

CONSUMER = next(iter(subscriptions().consumers))
ERROR = "smtplib.SMTPDataError: dalia@example.org refused"


def nothing() -> None:
    pass


InTurn = Callable[..., None]


@pytest.mark.usefixtures("settings")
def test_what_happens_is_shown_until_ctrl_c_which_is_no_failure(
    in_turn: InTurn, engine: Engine
) -> None:
    add_event(engine, name="identity.deleted")
    happened = []

    def happen() -> None:
        event_id = add_event(engine, name="identity.registered")
        log_attempt(engine, CONSUMER, event_id, outcome="gave_up", number=12, error=ERROR)
        happened.append(event_id)

    in_turn(happen, nothing, nothing)
    result = kratos_sync("tail")

    assert result.exit_code == 0
    event, attempt = result.stdout.splitlines()
    (event_id,) = happened
    assert re.fullmatch(
        rf"\d\d:\d\d:\d\d  identity.registered  event {event_id}  identity {SOMEBODY}  \(webhook\)",
        event,
    )
    assert attempt[10:] == (
        f"{CONSUMER}  dead letter  identity.registered  event {event_id}  attempt 12, 8 ms"
        "  smtplib.SMTPDataError"
    )


@pytest.mark.usefixtures("settings")
def test_a_machine_gets_an_object_a_line(in_turn: InTurn, engine: Engine) -> None:
    def happen() -> None:
        event_id = add_event(engine)
        log_attempt(engine, CONSUMER, event_id, outcome="failed", error=ERROR)

    in_turn(happen, nothing)
    result = kratos_sync("tail", "--json")

    event, attempt = map(json.loads, result.stdout.splitlines())
    assert event.keys() == {"kind", "at", "event_id", "event", "identity_id", "source"}
    assert attempt.keys() == {
        *("kind", "at", "event_id", "event", "identity_id", "consumer", "attempt", "outcome"),
        *("seconds", "error_type"),
    }
    assert (event["kind"], attempt["kind"]) == ("event", "attempt")
    assert event["event_id"] == attempt["event_id"]
    assert attempt["error_type"] == "smtplib.SMTPDataError"


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], ["identity.registered", "kratos_identity.updated", "gave_up", "succeeded"]),
        (["--failed"], ["gave_up"]),
        (["--outcome", "succeeded"], ["succeeded"]),
        (["--outcome", "succeeded", "--failed"], ["gave_up", "succeeded"]),
        (["--consumer", CONSUMER], ["succeeded"]),
        (["--event", "identity.registered"], ["gave_up", "identity.registered"]),
    ],
)
def test_it_shows_what_is_asked_for(
    in_turn: InTurn, engine: Engine, options: list[str], shown: list[str]
) -> None:
    def happen() -> None:
        registered = add_event(engine, name="identity.registered")
        log_attempt(engine, "Another", registered, outcome="gave_up", error=ERROR)
        log_attempt(engine, CONSUMER, add_event(engine))

    in_turn(happen, nothing)
    result = kratos_sync("tail", "--json", *options)

    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert sorted(line.get("outcome", line["event"]) for line in lines) == sorted(shown)


@pytest.mark.usefixtures("settings")
def test_nothing_of_a_person_is_shown_but_ids(in_turn: InTurn, engine: Engine) -> None:
    def happen() -> None:
        event_id = add_event(engine)
        for outcome in ("failed", "gave_up", "postponed"):
            log_attempt(engine, CONSUMER, event_id, outcome=outcome, error=ERROR)
        for outcome in ("retried", "discarded"):
            log_attempt(engine, CONSUMER, event_id, outcome=outcome, error="Dalia wants it so")

    for options in ([], ["--json"]):
        in_turn(happen, nothing)
        result = kratos_sync("tail", *options)
        assert len(result.stdout.splitlines()) == 6
        assert "dalia" not in result.output.lower()


@pytest.mark.usefixtures("settings")
def test_a_database_that_goes_away_is_waited_for(
    in_turn: InTurn, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        raise LedgerUnavailable("PostgreSQL cannot be reached")

    here = PostgresActivity.position

    def go_away() -> None:
        monkeypatch.setattr(PostgresActivity, "position", away)

    def come_back() -> None:
        monkeypatch.setattr(PostgresActivity, "position", here)
        add_event(engine)

    in_turn(go_away, come_back, nothing)
    result = kratos_sync("tail")

    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "PostgreSQL did not answer as it should (LedgerUnavailable)"
    ]
    assert len(result.stdout.splitlines()) == 1


def test_without_a_database_it_fails_in_one_line(broker_url: str) -> None:
    away = "postgresql://dalia:secret@127.0.0.1:1/nothing"
    result = kratos_sync("tail", DATABASE_URL=away, BROKER_URL=broker_url)

    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "PostgreSQL" in line
    assert "secret" not in line


@pytest.mark.usefixtures("settings")
def test_an_unknown_consumer_is_wrong_use() -> None:
    result = kratos_sync("tail", "--consumer", "Nobody")

    assert result.exit_code == 2
    assert "there is no consumer Nobody" in result.stderr


@contextmanager
def running(folder: Path, *command: str, **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command in a process of its own; what it prints is in `out`."""
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", "from kratos_sync.api.entry import main; main()", *command],
            cwd=folder,
            env={**os.environ, **settings},
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(DEADLINE_SECONDS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_without_an_error(
    tmp_path: Path, engine: Engine, database_url: str, broker_url: str, number: int
) -> None:
    urls: dict[str, Any] = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    out = tmp_path / "out"
    with running(tmp_path, "tail", "--json", **urls) as process:

        def shows() -> bool:
            add_event(engine)
            return b"event_id" in out.read_bytes()

        until(shows)
        process.send_signal(number)
        assert process.wait(DEADLINE_SECONDS) == 0
    lines = out.read_text().splitlines()
    assert all(json.loads(line)["kind"] == "event" for line in lines)


def test_looks_are_rarer_where_they_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    def look() -> None:
        if pauses:
            began = time.monotonic()
            until(lambda: time.monotonic() > began + 0.02)

    monkeypatch.setattr(watching, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        watching.look_again(look, lambda _: None, lambda _: None, 0.01)
    assert pauses[0] < 0.08 <= pauses[1]
