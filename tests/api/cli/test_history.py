import json

import pytest
from click.testing import Result
from sqlalchemy import Engine

from tests.api.cli.invoking import kratos_sync
from tests.infrastructure.ledger.rows import (
    A_MINUTE,
    SOMEBODY,
    add_delivery,
    add_event,
    add_identity,
    log_attempt,
)

pytestmark = pytest.mark.usefixtures("settings")

ERROR = (
    'Traceback (most recent call last):\n  File "/app/greet.py", line 7, in consume\n'
    "    greet(name)\nRudeness: dalia@example.org \x1b[31m"
)


def history(*options: str) -> Result:
    return kratos_sync("history", str(SOMEBODY), *options)


def test_every_event_is_shown_with_what_each_consumer_did(engine: Engine) -> None:
    add_identity(engine, version=3)
    event_id = add_delivery(
        engine, "Greet", age=2 * A_MINUTE, attempts=2, failed_ago=A_MINUTE, last_error=ERROR
    )
    log_attempt(engine, "Greet", event_id, outcome="failed", error=ERROR)
    log_attempt(engine, "Greet", event_id, number=2, outcome="gave_up", error=ERROR)
    log_attempt(engine, "Count", event_id)
    add_delivery(
        engine, "Count", age=A_MINUTE, due_in=A_MINUTE, attempts=1, last_error="KeyError: 1"
    )
    add_delivery(engine, "Count", due_in=A_MINUTE, leased=True)
    result = history()
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "active, version 3" in lines
    assert "3 events, oldest first." in lines
    assert [line.split(" UTC ")[1] for line in lines if "Rudeness" in line and "UTC" in line][
        :2
    ] == [
        "failed 8 ms Rudeness",
        "failed 8 ms Rudeness",
    ]
    assert any(line.startswith("DEAD LETTER after 2 attempts, since") for line in lines)
    assert any(line.startswith("PENDING after 1 attempt: due") for line in lines)
    assert any(line.startswith("PENDING and not tried yet: leased") for line in lines)


def test_the_name_of_an_unknown_event_is_shown(engine: Engine) -> None:
    add_delivery(
        engine, "Greet", due_in=A_MINUTE, last_error="UnknownEvent: kratos_identity.merged"
    )
    assert "last error UnknownEvent: kratos_identity.merged" in history().stdout


def test_an_event_without_consumers_says_so(engine: Engine) -> None:
    add_event(engine)
    assert "no consumer was subscribed" in history().stdout
    assert "no copy of it" in history().stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_only_the_type_of_an_error_is_shown(engine: Engine, options: list[str]) -> None:
    add_identity(engine)
    log_attempt(engine, "Greet", add_delivery(engine, "Greet", last_error=ERROR), error=ERROR)
    result = history(*options)
    assert "Rudeness" in result.stdout
    assert "dalia" not in result.stdout


def test_verbose_shows_each_error_in_full_and_once(engine: Engine) -> None:
    log_attempt(engine, "Greet", add_delivery(engine, "Greet", last_error=ERROR), error=ERROR)
    result = history("--verbose")
    assert result.stdout.count("Rudeness: dalia@example.org") == 1
    assert "greet(name)" in result.stdout


def test_verbose_shows_an_error_that_no_attempt_logged(engine: Engine) -> None:
    add_delivery(engine, "Greet", last_error=ERROR)
    assert history("--verbose").stdout.count("Rudeness: dalia@example.org") == 1


def test_errors_are_made_harmless(engine: Engine) -> None:
    add_delivery(engine, "Greet", last_error=ERROR)
    assert "\x1b" not in history("--verbose").stdout


def test_a_history_cut_by_the_limit_says_so(engine: Engine) -> None:
    for age in (3, 2, 1):
        add_event(engine, age=age * A_MINUTE)
    assert "The newest 2 of 3 events, oldest first; --limit shows more." in (
        history("--limit", "2").stdout
    )
    assert "3 events, oldest first." in history("--limit", "3").stdout


def test_the_json_has_the_documented_keys(engine: Engine) -> None:
    add_identity(engine)
    event_id = add_delivery(engine, "Greet", attempts=1, due_in=A_MINUTE, last_error=ERROR)
    log_attempt(engine, "Greet", event_id, outcome="failed", error=ERROR)
    document = json.loads(history("--json", "--verbose").stdout)
    assert list(document) == [
        "identity_id",
        "at",
        "identity",
        "erasure",
        "recorded",
        "events",
    ]
    assert (document["identity_id"], document["recorded"]) == (str(SOMEBODY), 1)
    assert list(document["identity"]) == [
        "state",
        "version",
        "created_at",
        "updated_at",
        "deleted_at",
        "synced_at",
        "forgotten_at",
    ]
    (event,) = document["events"]
    (delivery,) = event.pop("deliveries")
    assert list(event) == [
        "id",
        "name",
        "source",
        "occurred_at",
        "recorded_at",
        "erased_at",
        "hook",
    ]
    (attempt,) = delivery["attempts"]
    assert attempt.pop("started_at")
    assert attempt == {
        "number": 1,
        "outcome": "failed",
        "duration_seconds": 0.008,
        "error_type": "Rudeness",
        "error": ERROR,
    }
    assert delivery["outstanding"].pop("due_at")
    assert delivery["outstanding"] == {
        "attempts": 1,
        "leased": False,
        "failed_at": None,
        "shape": None,
        "error_type": "Rudeness",
        "error": ERROR,
    }


def test_an_unknown_identity_is_a_failure_in_one_line() -> None:
    result = history()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: Nothing is known of an identity {SOMEBODY}.\n"


def test_an_invalid_id_is_wrong_use() -> None:
    result = kratos_sync("history", "dalia")
    assert result.exit_code == 2
    assert "not a valid UUID" in result.stderr
