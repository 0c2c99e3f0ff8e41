"""What `kratos-sync status` reports of Kratos' hooks."""

import asyncio
import json
import re
from datetime import timedelta
from uuid import uuid4

from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.api.attention import hooks_attention
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.hook_log import Calls, HookActivity
from kratos_sync.domain.events import KratosTemplateFailed
from kratos_sync.infrastructure.ledger.hook_activity import PostgresHookLog
from tests.api.cli.invoking import kratos_sync
from tests.domain.people import NOON
from tests.suites.publishing import bus_of, publish

DAY = timedelta(days=1)
LABEL = "settings.after.profile"


def activity(label: str, *, silent_for: timedelta) -> HookActivity:
    return HookActivity(label, NOON - silent_for - 30 * DAY, NOON - silent_for, 31)


def note(database_url: str, *calls: Calls) -> None:
    async def scenario() -> None:
        log = PostgresHookLog(SecretStr(database_url))
        await log.note(calls)
        await log.stop()

    asyncio.run(scenario())


def test_a_hook_that_is_silent_needs_attention() -> None:
    hooks = [activity("login", silent_for=timedelta()), activity(LABEL, silent_for=12 * DAY)]
    (sentence,) = hooks_attention(hooks, NOON)
    assert sentence.text.startswith(
        f"No webhook was received from the hook {LABEL} for 12 d; before that, one came every 1 d"
    )


def test_all_hooks_being_silent_is_reported_once() -> None:
    hooks = [activity("login", silent_for=12 * DAY), activity("", silent_for=12 * DAY)]
    (sentence,) = hooks_attention(hooks, NOON)
    assert sentence.text.startswith("No webhook was received from any hook for 12 d; before that,")


def test_each_hook_is_listed_with_its_last_call(database_url: str, broker_url: str) -> None:
    note(database_url, Calls(LABEL, 1_204, timedelta(hours=3)), Calls("", 1, timedelta()))
    result = kratos_sync("status", DATABASE_URL=database_url, BROKER_URL=broker_url)
    assert result.exit_code == 0
    lines = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()]
    assert [LABEL, "1,204", "3 h ago"] in lines
    (unnamed,) = [line for line in lines if line[0] == "(no X-Kratos-Hook)"]
    assert unnamed[1] == "1"


def test_before_the_first_call_there_is_no_list(database_url: str, broker_url: str) -> None:
    result = kratos_sync("status", DATABASE_URL=database_url, BROKER_URL=broker_url)
    assert "HOOK" not in result.stdout


def test_the_json_lists_each_hook(database_url: str, broker_url: str) -> None:
    note(database_url, Calls(LABEL, 7, timedelta(hours=3)), Calls("", 1, timedelta()))
    result = kratos_sync("status", "--json", DATABASE_URL=database_url, BROKER_URL=broker_url)
    unnamed, hook = json.loads(result.stdout)["hooks"]
    assert (unnamed["label"], unnamed["calls"]) == ("", 1)
    assert hook["last_at"] == hook["first_at"]
    assert hook["last_at"].endswith("Z")
    assert hook.keys() == {"label", "first_at", "last_at", "calls"}
    assert (hook["label"], hook["calls"]) == (LABEL, 7)


def fail(engine: Engine, *labels: str) -> None:
    for label in labels:
        publish(bus_of(engine), KratosTemplateFailed(uuid4(), NOON, label), Provenance("webhook"))


def test_a_failed_template_needs_attention_until_the_next_reconciliation(
    engine: Engine, database_url: str, broker_url: str
) -> None:
    def status(*options: str) -> str:
        return kratos_sync(
            "status", *options, DATABASE_URL=database_url, BROKER_URL=broker_url
        ).stdout

    fail(engine, LABEL, LABEL, "")
    said = " ".join(status().split())
    assert (
        f"Kratos' template failed: 2 calls of the hook {LABEL} had an empty body, the last" in said
    )
    assert "1 call of the hook (no X-Kratos-Hook)" in said
    assert "`kratos-sync reconcile` finds them" in said
    unnamed, hook = json.loads(status("--json"))["template_failures"]
    assert (unnamed["label"], unnamed["calls"]) == ("", 1)
    assert (hook["label"], hook["calls"]) == (LABEL, 2)
    assert hook["first_at"] < hook["last_at"]

    compare(engine, "refused: Kratos lists no identity")
    assert "template failed" in status()
    compare(engine, "completed")
    assert "template failed" not in status()
    assert json.loads(status("--json"))["template_failures"] == []
    fail(engine, LABEL)
    assert "1 call of the hook" in " ".join(status().split())


def compare(engine: Engine, outcome: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO kratos_sync.reconciliations (held, ended_at, outcome)"
                " VALUES (0, clock_timestamp(), :outcome)"
            ),
            {"outcome": outcome},
        )
