"""Whatever others wrote, what a command prints for a person steers no terminal."""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from kratos_sync.api.cli import audit, check, dev, status
from kratos_sync.api.cli.dead_letters import each_lines, group_lines
from kratos_sync.api.cli.history import history_lines
from kratos_sync.api.cli.output import echo, echo_json
from kratos_sync.application.drift import Drift
from kratos_sync.application.kratos_config.check import Coverage, Report
from kratos_sync.application.kratos_config.findings import Finding, Severity
from kratos_sync.application.kratos_config.hooks import Place
from kratos_sync.application.ports.dead_letters import DeadLetter, DeadLetterGroup, DeadLetterGroups
from kratos_sync.application.ports.deletions import Erasure
from kratos_sync.application.ports.history import (
    Attempt,
    Delivery,
    IdentityHistory,
    IdentitySummary,
    Outstanding,
    RecordedEvent,
)
from kratos_sync.application.ports.hook_log import HookActivity
from kratos_sync.application.ports.operations import How, Operation, OperationRequest, Outcome
from kratos_sync.application.ports.purge import Retention
from kratos_sync.application.ports.reconciliation import Findings, PastReconciliation
from kratos_sync.application.ports.status import (
    BrokerStatus,
    ConsumerStatus,
    Count,
    Holder,
    StatusReport,
    Storage,
    UnknownEvents,
)
from kratos_sync.infrastructure.ledger.operations import PostgresOperations
from tests.api.cli.invoking import kratos_sync
from tests.infrastructure.ledger.rows import (
    A_MINUTE,
    SOMEBODY,
    add_delivery,
    add_event,
    add_identity,
    log_attempt,
)

NOW = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)
AGO = NOW - timedelta(days=3)
FORGED = "All is well."
NASTY = (
    "\x1b[2J\x1b]0;title\x07\x9b31m\x90q\x9c\x00\x08\x7f\r\u2028\u2029\x85\u202e\u2066\u200f\ufeff\x0b"
    f"\x0c\x1c\n{FORGED}\n[red]\t\ud800"
)
STORABLE = NASTY.replace("\x00", "").replace("\ud800", "")
ARGUMENT = f"{STORABLE}\udc9b"
texts = st.lists(
    st.one_of(
        st.sampled_from(["\n", "\r\n", FORGED, "\x1b[31m", "\x9b2J", "\x1b]8;;x\x07", "\u202e"]),
        st.text(max_size=5),
        st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Cs", "Co"]),
    ),
    min_size=1,
).map("".join)

HISTORY = IdentityHistory(
    SOMEBODY,
    NOW,
    IdentitySummary("active", 1, AGO, AGO, AGO, NOW, AGO),
    Erasure(AGO, AGO, "ada", "asked by letter"),
    3,
    (
        RecordedEvent(
            SOMEBODY,
            "identity.registered",
            "webhook",
            AGO,
            AGO,
            (
                Delivery(
                    "Greet",
                    (
                        Attempt(1, "failed", AGO, A_MINUTE, "KeyError: 1"),
                        Attempt(2, "discarded", AGO, A_MINUTE, "Discarded by ada: so"),
                    ),
                    Outstanding(2, NOW, False, AGO, "KeyError: 1"),
                ),
                Delivery("Count", (), Outstanding(2, NOW, True, None, "UnknownEvent: x")),
            ),
        ),
    ),
)
OPERATION = Operation(
    1,
    "retry",
    "ada",
    "operator",
    How.CLI,
    "the server is back",
    SOMEBODY,
    "Greet",
    {"exception": "OSError", "names": ["a.b"], "rate": 5},
    None,
    AGO,
    AGO,
    AGO,
    Outcome.CANCELLED,
    1,
    2,
    {"error": "OSError"},
    "grace",
    AGO,
)
STATUS = StatusReport(
    at=NOW,
    revision="0004",
    needed_revision="0005",
    alive=Count(1),
    deleted=Count(1),
    events=Count(1),
    attempts=Count(1),
    consumers=(ConsumerStatus("Greet", False, due=1, failed=1, lag=timedelta(days=1)),),
    unknown_events=(UnknownEvents("identity.merged", 1, A_MINUTE),),
    storage=Storage(
        {"events": 1},
        holders=(
            Holder("transaction", "4711", "psql", A_MINUTE, 1),
            Holder("replication slot", "standby", None, None, 1),
        ),
    ),
    drift=Drift(
        (PastReconciliation(AGO, AGO, AGO, "refused: no", Findings(stale=1, fields={"traits": 1})),)
    ),
    hooks=(HookActivity("settings.after", AGO, AGO, 3),),
    operations=(OPERATION,),
)
GROUPS = DeadLetterGroups(
    2,
    2,
    (DeadLetterGroup("Greet", "KeyError", "1", 2, AGO, AGO, SOMEBODY, "KeyError: 1\n  x"),),
    NOW,
)
LETTER = DeadLetter(
    SOMEBODY, "Greet", "identity.registered", SOMEBODY, 1, AGO, "E", "s", "E: s\n t"
)
CHECKED = Report(
    (Finding("rule", Severity.ERROR, "No hook calls.", "Do.", 1, ("a", "b")),),
    (Coverage(Place("login", "password"), True, False, ("a",)),),
)


def with_hostile_text(value: Any, hostile: str) -> Any:
    """The value with the hostile text behind every text in it."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return value + hostile
    if is_dataclass(value) and not isinstance(value, type):
        changes = {
            f.name: with_hostile_text(getattr(value, f.name), hostile)
            for f in fields(value)
            if f.init
        }
        return replace(value, **changes)
    if isinstance(value, tuple) and hasattr(value, "_replace"):
        return type(value)(*(with_hostile_text(each, hostile) for each in value))
    if isinstance(value, tuple | list):
        return type(value)(with_hostile_text(each, hostile) for each in value)
    if isinstance(value, dict):
        return {
            with_hostile_text(key, hostile): with_hostile_text(each, hostile)
            for key, each in value.items()
        }
    return value


def assert_harmless(output: str) -> None:
    assert {c for c in output if unicodedata.category(c)[0] == "C"} <= {"\n"}
    assert not {"\u2028", "\u2029"} & set(output)
    assert not [line for line in output.split("\n") if line.startswith(FORGED)]


PRINTED: dict[str, Callable[[str], None]] = {
    "status": lambda hostile: status.print_report(
        with_hostile_text(STATUS, hostile),
        with_hostile_text(BrokerStatus({"Greet": 1}, "ConnectionError"), hostile),
        Retention(None, None),
    ),
    "history": lambda hostile: echo(*history_lines(with_hostile_text(HISTORY, hostile), True)),
    "failed list": lambda hostile: echo(
        *group_lines(with_hostile_text(GROUPS, hostile), NOW, True)
    ),
    "failed list --each": lambda hostile: echo(
        *each_lines([with_hostile_text(LETTER, hostile)], 2, NOW, True)
    ),
    "audit": lambda hostile: echo(*audit.table([with_hostile_text(OPERATION, hostile)])),
    "check": lambda hostile: check.print_report(
        f"kratos.yml{hostile}", with_hostile_text(CHECKED, hostile)
    ),
    "anything": lambda hostile: echo(f"Said: {hostile}"),
    "JSON": lambda hostile: echo_json({hostile: [hostile]}),
    "a child of dev": lambda hostile: dev.show_line(
        "api", hostile.encode(errors="surrogateescape") if hostile.isascii() else b"\x9b"
    ),
}


@pytest.mark.parametrize("printed", sorted(PRINTED))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts)
def test_output_never_contains_control_characters(
    capsys: pytest.CaptureFixture[str], printed: str, hostile: str
) -> None:
    capsys.readouterr()
    PRINTED[printed](hostile)
    assert_harmless(capsys.readouterr().out)


@pytest.fixture
def hostile_ledger(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    engine: Engine,
    database_url: str,
    broker_url: str,
) -> UUID:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BROKER_URL", broker_url)
    add_identity(engine)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE kratos_sync.kratos_identities SET state = :s"), {"s": STORABLE}
        )
        connection.execute(
            text("INSERT INTO kratos_sync.hooks_heard VALUES (:s, now(), now(), 1)"),
            {"s": STORABLE},
        )
    event_id = add_event(engine, name=STORABLE, source=STORABLE, age=10 * A_MINUTE)
    with engine.begin() as connection:
        payload = json.dumps({STORABLE: STORABLE})
        connection.execute(
            text("UPDATE kratos_sync.events SET payload = CAST(:p AS jsonb)"), {"p": payload}
        )
    error = f"Error: {STORABLE}"
    add_delivery(
        engine,
        STORABLE,
        event_id,
        attempts=1,
        failed_ago=A_MINUTE,
        last_error=error,
        error_type=STORABLE,
        error_shape=STORABLE,
    )
    add_delivery(engine, f"Other{STORABLE}", event_id, age=10 * A_MINUTE, last_error=error)
    log_attempt(engine, STORABLE, event_id, outcome="failed", error=error)
    log_attempt(engine, STORABLE, event_id, number=2, outcome="discarded", error=error)
    request = OperationRequest(
        STORABLE, STORABLE, How.CLI, STORABLE, SOMEBODY, STORABLE, {STORABLE: STORABLE}
    )
    PostgresOperations(engine).begin(request, event_id)
    return event_id


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "status --json",
        f"history {SOMEBODY}",
        f"history {SOMEBODY} --verbose",
        f"history {SOMEBODY} --json",
        "failed list",
        "failed list --verbose",
        "failed list --each --verbose",
        "failed list --json",
        "failed show EVENT --payload",
        "failed show EVENT --payload --json",
        "failed retry --all --dry-run",
        "failed discard --all --dry-run --reason why",
        f"erase {SOMEBODY} --dry-run --reason why",
        "audit",
        "audit --json",
    ],
)
def test_data_from_the_ledger_is_made_harmless(hostile_ledger: UUID, command: str) -> None:
    result = kratos_sync(*command.replace("EVENT", str(hostile_ledger)).split())
    assert result.exit_code == 0, result.output
    assert_harmless(result.stdout)
    assert_harmless(result.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        (ARGUMENT,),
        (f"--{ARGUMENT}",),
        ("status", ARGUMENT),
        ("history", ARGUMENT),
        ("failed", ARGUMENT),
        ("sync", ARGUMENT),
        ("replay", "--consumer", ARGUMENT, "--since", "1d"),
        ("replay", "--consumer", "x", "--since", ARGUMENT),
        ("check", ARGUMENT),
        ("hooks", "--url", f"http://{ARGUMENT}"),
        ("hooks", "--mapper", f"file:///{ARGUMENT}"),
    ],
)
def test_errors_about_arguments_are_made_harmless(arguments: tuple[str, ...]) -> None:
    result = kratos_sync(*arguments)
    assert_harmless(result.stdout)
    assert_harmless(re.sub(r"^Error: ", "", result.stderr))


def test_commands_print_through_output_only() -> None:
    folder = Path(dev.__file__).parent
    other_ways = re.compile(r"click\.s?echo\(|(?<!\.)\bprint\(|\brich\b")
    using = {
        module.relative_to(folder).as_posix()
        for module in folder.rglob("*.py")
        if other_ways.search(module.read_text())
    }
    assert using == {"output.py", "dev.py"}
