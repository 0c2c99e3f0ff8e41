"""Looking at dead letters."""

import json
from uuid import uuid4

import pytest
from click.testing import Result
from sqlalchemy import Engine

from tests.api.cli.invoking import kratos_sync
from tests.infrastructure.ledger.rows import (
    A_MINUTE,
    SOMEBODY,
    add_delivery,
    add_event,
    log_attempt,
)
from tests.infrastructure.ledger.test_dead_letters import fail

pytestmark = pytest.mark.usefixtures("settings")

ERROR = (
    'Traceback (most recent call last):\n  File "/app/greet.py", line 7, in consume\n'
    "    greet(name)\nRudeness: dalia@example.org \x1b[31m"
)


def failed(*arguments: str) -> Result:
    result = kratos_sync("failed", *arguments)
    assert "\x1b" not in result.output
    return result


def test_without_dead_letters_it_says_so() -> None:
    for options in ([], ["--each"]):
        result = failed("list", *options)
        assert (result.exit_code, result.stdout) == (0, "No dead letters.\n")


def test_groups_are_listed_largest_first_with_an_example(engine: Engine) -> None:
    fail(engine, "Count", shape=None)
    ages = [60 * A_MINUTE, *[A_MINUTE] * 1_000]
    ids = [fail(engine, kind="greet.Rudeness", shape="… is rude", ago=ago) for ago in ages]
    lines = [" ".join(line.split()) for line in failed("list").stdout.splitlines() if line]
    assert lines[:3] == [
        "1,002 dead letters in 2 groups:",
        "1,001 Greet",
        "greet.Rudeness: … is rude",
    ]
    assert lines[3].startswith("failed from ")
    assert lines[4].removeprefix("for example event ") in {str(each) for each in ids}
    assert lines[5:7] == ["1 Count", "KeyError"]
    assert lines[7].endswith("UTC (1 min ago)") or lines[7].endswith("s ago)")


def test_a_list_cut_by_the_limit_says_so(engine: Engine) -> None:
    for shape in ("a", "b", "c"):
        fail(engine, shape=shape)
    assert "3 dead letters in 3 groups; the largest 2 of them:" in (
        failed("list", "--limit", "2").stdout
    )
    each = failed("list", "--each", "--limit", "2").stdout
    assert "The newest 2 of 3 dead letters; --limit shows more:" in each
    assert each.count("event ") == 2


def test_a_filter_narrows_the_list(engine: Engine) -> None:
    fail(engine, kind="greet.Rudeness", ago=A_MINUTE)
    fail(engine, "Count", add_event(engine, name="identity.registered"), ago=90 * A_MINUTE)
    for options in (
        ["--consumer", "Count"],
        ["--event", "identity.registered"],
        ["--exception", "KeyError"],
    ):
        assert json.loads(failed("list", "--json", *options).stdout)["groups"][0]["consumer"] == (
            "Count"
        )
    for options in (["--exception", "Rudeness"], ["--since", "1h"]):
        document = json.loads(failed("list", "--json", *options).stdout)
        assert [group["consumer"] for group in document["groups"]] == ["Greet"]


@pytest.mark.parametrize("options", [[], ["--json"], ["--each"], ["--each", "--json"]])
def test_errors_are_printed_with_verbose_only(engine: Engine, options: list[str]) -> None:
    fail(engine, error=ERROR)
    assert "dalia" not in failed("list", *options).output
    assert "Rudeness: dalia@example.org" in failed("list", "--verbose", *options).stdout


def test_the_json_of_the_groups_has_the_documented_keys(engine: Engine) -> None:
    event_id = fail(engine)
    document = json.loads(failed("list", "--json").stdout)
    assert list(document) == ["at", "dead_letters", "groups_in_all", "groups"]
    (group,) = document["groups"]
    assert group.pop("first_failed_at") == group.pop("last_failed_at") < document["at"]
    assert group == {
        "consumer": "Greet",
        "exception": "KeyError",
        "shape": "'…'",
        "dead_letters": 1,
        "example_event_id": str(event_id),
        "example_error": None,
        "retries": 0,
    }


def test_the_json_of_each_has_the_documented_keys(engine: Engine) -> None:
    event_id = fail(engine)
    document = json.loads(failed("list", "--each", "--json").stdout)
    assert list(document) == ["at", "dead_letters", "newest"]
    (letter,) = document["newest"]
    assert letter.pop("failed_at") < document["at"]
    assert letter == {
        "event_id": str(event_id),
        "consumer": "Greet",
        "event": "kratos_identity.updated",
        "identity_id": str(SOMEBODY),
        "attempts": 12,
        "exception": "KeyError",
        "shape": "'…'",
        "error": None,
        "retries": 0,
    }


def test_an_event_is_shown_with_every_attempt_and_the_last_traceback(engine: Engine) -> None:
    event_id = fail(engine, error=ERROR)
    log_attempt(engine, "Greet", event_id, outcome="failed", error="KeyError: 'first'")
    log_attempt(engine, "Greet", event_id, number=2, outcome="gave_up", error=ERROR)
    log_attempt(engine, "Count", event_id)
    shown = failed("show", str(event_id)).stdout
    for expected in (
        f"Event {event_id}  kratos_identity.updated",
        f"about identity {SOMEBODY}, from webhook",
        "KeyError: 'first'",
        "failed",
        "DEAD LETTER after 12 attempts",
        'File "/app/greet.py", line 7, in consume',
    ):
        assert expected in shown
    assert shown.count("Traceback") == 1
    assert "Count" in shown
    assert "Count" not in failed("show", str(event_id), "--consumer", "Greet").stdout


def test_the_payload_is_printed_on_request_only(engine: Engine) -> None:
    event_id = add_event(engine)
    for options in ([], ["--json"]):
        assert "dalia" not in failed("show", str(event_id), *options).stdout
        assert '"email": "dalia@example.org"' in (
            failed("show", str(event_id), "--payload", *options).stdout
        )


def test_who_discarded_an_event_and_why_is_shown(engine: Engine) -> None:
    event_id = fail(engine, "Greet")
    reason = ("discard", str(event_id), "--yes", "--by", "ada", "--reason", "too late")
    assert failed(*reason).exit_code == 0
    assert "discarded  by ada: too late" in failed("show", str(event_id)).stdout
    (delivery,) = json.loads(failed("show", str(event_id), "--json").stdout)["deliveries"]
    assert delivery["outstanding"] is None
    assert delivery["attempts"][0]["error"] == "Discarded by ada: too late"
    history = kratos_sync("history", str(SOMEBODY)).stdout
    assert "discarded" in history
    assert "discarded  by ada: too late" in history


def test_the_json_of_an_event_has_the_documented_keys(engine: Engine) -> None:
    event_id = fail(engine, error=ERROR)
    document = json.loads(failed("show", str(event_id), "--json").stdout)
    assert list(document) == ["event", "deliveries"]
    assert list(document["event"]) == [
        "id",
        "name",
        "identity_id",
        "source",
        "occurred_at",
        "recorded_at",
        "erased_at",
    ]
    (delivery,) = document["deliveries"]
    assert delivery["outstanding"]["error"] == ERROR


def test_an_event_that_was_never_recorded_is_a_failure(engine: Engine) -> None:
    unknown = str(uuid4())
    result = failed("show", unknown)
    assert (result.exit_code, result.stderr) == (1, f"Error: There is no event {unknown}.\n")
    event_id = str(add_delivery(engine, "Greet"))
    result = failed("show", event_id, "--consumer", "Tickle")
    assert result.exit_code == 1
    assert "Tickle has no delivery of" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["list", "--since", "yesterday"], ["list", "--limit", "0"], ["show"], ["show", "dalia"]],
)
def test_wrong_use_has_its_own_exit_code(arguments: list[str]) -> None:
    assert failed(*arguments).exit_code == 2


def test_a_consumer_that_exists_nowhere_is_wrong_use(engine: Engine) -> None:
    fail(engine, "Gone")

    result = failed("list", "--consumer", "Nobody")
    assert result.exit_code == 2
    assert "there is no consumer Nobody: there are SyncKratosIdentity, " in result.stderr

    assert "1 dead letter in 1 group" in failed("list", "--consumer", "Gone").stdout
    assert failed("list", "--consumer", "SyncKratosIdentity").stdout == "No dead letters.\n"
