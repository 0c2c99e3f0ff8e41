"""What the console shows is what the commands print: in the same words, from the same places."""

import ast
import re
import socket
import time
from datetime import timedelta
from html import unescape
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.api.http.console.app import create_console
from kratos_sync.api.http.console.audit import NAMES
from kratos_sync.application.actions import DISCARD, RETRY
from kratos_sync.application.operations import STOP
from kratos_sync.application.ports.operations import How, OperationRequest, Outcome, Progress
from kratos_sync.infrastructure.bus.broker import connect
from kratos_sync.infrastructure.container import Container
from tests.api.cli.invoking import kratos_sync
from tests.api.http.console.visiting import SYNC, VIEWER, SignedIn, Visitor, fail, open_routes
from tests.infrastructure.ledger.rows import (
    A_MINUTE,
    SOMEBODY,
    add_delivery,
    add_event,
    add_identity,
    log_attempt,
)

SOURCE = Path(__file__).parents[4] / "src"
UPDATE_SECONDS = 10
"""So long does a page wait for its update."""

pytestmark = pytest.mark.usefixtures("command_settings")


@pytest.fixture
def command_settings(monkeypatch: pytest.MonkeyPatch, database_url: str, broker_url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BROKER_URL", broker_url)


def words(page: str) -> str:
    """What somebody reads on a page."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


def printed(*command: str) -> str:
    return " ".join(kratos_sync(*command).stdout.split())


def test_a_consumer_is_in_the_states_that_status_prints(visitor: Visitor, engine: Engine) -> None:
    fail(engine)
    add_delivery(engine, SYNC, age=timedelta(minutes=9))
    states = "behind, dead letters"
    assert states in printed("status")
    assert states in visitor.get("/").text


@pytest.mark.parametrize("is_listening", [False, True], ids=["away", "hanging"])
def test_a_broker_that_does_not_answer_is_named_as_by_status(
    container: Container, monkeypatch: pytest.MonkeyPatch, is_listening: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"redis://127.0.0.1:{server.getsockname()[1]}"
        if not is_listening:
            server.close()
        monkeypatch.setenv("BROKER_URL", url)
        container.broker.override(connect(SecretStr(url)))
        with open_routes(container) as routes:
            began = time.monotonic()
            page = words(Visitor(create_console(SignedIn(VIEWER), routes)).get("/").text)
            assert time.monotonic() - began < UPDATE_SECONDS
        (said,) = re.findall(r"The broker does not answer .*? BROKER_URL right\?", page)
        assert said in printed("status")


def test_a_broker_that_answers_is_no_matter(visitor: Visitor) -> None:
    assert "broker" not in words(visitor.get("/").text)


def test_a_delivery_is_described_as_history_does(visitor: Visitor, engine: Engine) -> None:
    add_identity(engine)
    event_id = add_delivery(
        engine, SYNC, due_in=A_MINUTE, attempts=1, last_error="UnknownEvent: a.merged"
    )
    log_attempt(engine, SYNC, event_id, outcome="failed", error="KeyError: 1")
    page = words(visitor.get(f"/identity/{SOMEBODY}").text)
    for said in ("after 1 attempt: due", "UnknownEvent: a.merged", "KeyError"):
        assert said in printed("history", str(SOMEBODY))
        assert said in page


def test_an_error_is_described_by_its_type_and_shape(visitor: Visitor, engine: Engine) -> None:
    event_id = fail(engine, shape="no plan for …")
    said = "ValueError: no plan for …"
    assert said in printed("history", str(SOMEBODY))
    assert said in printed("failed", "show", str(event_id))
    for page in (f"/identity/{SOMEBODY}", f"/events/{event_id}"):
        assert said in words(visitor.get(page).text)


def test_a_refused_dry_run_is_shown_as_refused(visitor: Visitor, container: Container) -> None:
    operations, runner = container.operations(), uuid4()
    number = operations.begin(
        OperationRequest("reconcile", "cleo", How.CLI, scope={"dry_run": True}), runner
    )
    refused = Progress(0, None, {"refused": "Kratos lists no identity"})
    operations.note(number, runner, refused, Outcome.FAILED)
    said = "refused: Kratos lists no identity"
    assert said in printed("audit")
    for page in ("/audit", f"/audit/{number}"):
        assert said in words(visitor.get(page).text)


def test_a_reconciliation_ended_as_status_says(visitor: Visitor, engine: Engine) -> None:
    add = (
        "INSERT INTO kratos_sync.reconciliations (held, identities, missing{0}) VALUES (9, 7, 2{1})"
    )
    for columns, values in (("", ""), (", ended_at, outcome", ", now(), 'refused: too few'")):
        with engine.begin() as connection:
            connection.execute(text(add.format(columns, values)))
    page = words(visitor.get("/kratos").text)
    for said in ("interrupted", "refused"):
        assert said in printed("status", "--drift")
        assert said in page
    assert "The last reconciliation deleted nobody: too few." in page


def test_an_event_without_a_consumer_has_no_steps(visitor: Visitor, engine: Engine) -> None:
    event_id = add_event(engine)
    assert "No consumer was subscribed to it." in visitor.get(f"/events/{event_id}").text


def test_every_operation_can_be_chosen_in_the_audit() -> None:
    named = {
        argument.value
        for file in SOURCE.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        if call.func.id in {"OperationRequest", "requested"}
        for argument in call.args[:2]
        if isinstance(argument, ast.Constant)
    }
    assert named | {RETRY, DISCARD, STOP} == set(NAMES)
