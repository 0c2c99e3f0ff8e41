"""Reconciling at the command line, with a stand-in of Kratos."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import structlog
from click.testing import Result
from sqlalchemy import Engine
from structlog.testing import LogCapture

from kratos_sync.api.cli import reconcile as reconcile_run
from kratos_sync.api.cli.process import opened_container
from kratos_sync.api.cli.reconcile import Outcome, Reconciler, for_ever, in_words
from kratos_sync.application.ports.operations import (
    How,
    Operation,
    OperationFilter,
    OperationRequest,
)
from kratos_sync.application.ports.operations import Outcome as HowItEnded
from kratos_sync.application.ports.reconciliation import Findings
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.ledger.operations import PostgresOperations
from kratos_sync.infrastructure.worker.shutdown import ShutdownRequested, ShutdownSignals
from kratos_sync.testing.kratos import Document
from tests.api.cli.invoking import kratos_sync, process_state_kept
from tests.end_to_end.processes import KRATOS_SYNC
from tests.infrastructure.reconciliation.test_reconciliations import lose_connection
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import many, person
from tests.kratos.reply import broken, cut_at, nothing, says, too_many
from tests.suites.reconciling import World, world_on_postgres
from tests.waiting import DEADLINE_SECONDS

pytestmark = pytest.mark.usefixtures("settings", "kratos")

LATER = "2026-03-01T00:00:00Z"
ENOUGH = 501
"""People of two pages."""
ON_SCHEDULE = OperationRequest("reconcile", "ada", How.SCHEDULE)


@pytest.fixture
def world(engine: Engine) -> World:
    return world_on_postgres(engine)


@pytest.fixture
def kratos(monkeypatch: pytest.MonkeyPatch, world: World) -> Iterator[AdminStandIn]:
    with AdminStandIn(world.town) as kratos:
        monkeypatch.setenv("KRATOS_ADMIN_URL", kratos.url)
        yield kratos


def reconcile(*arguments: str, **settings: str | None) -> Result:
    return kratos_sync("reconcile", *arguments, **settings)


def document_of(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def changed(document: Document, **fields: Any) -> Document:
    return {**document, "updated_at": LATER, **fields}


def after(kratos: AdminStandIn, requests: int, act: Callable[[], object]) -> None:
    """Do this when so many more requests have come, before the last is answered."""
    due = len(kratos.seen) + requests
    kratos.before = lambda number: act() if number == due else None


def two_pages_that_differ(world: World) -> int:
    """Have more people than a page holds, all of them different here; give how many."""
    people = many(ENOUGH)
    world.copy(*people)
    for document in people:
        world.town.put(changed(document))
    return len(world.events())


def test_it_reports_that_all_are_the_same(world: World) -> None:
    world.copy(*many(3))
    result = reconcile()
    assert result.exit_code == 0
    assert result.stdout.startswith("Compared 3 identities with 3 here, in ")
    assert result.stdout.endswith(" a second.\nThey are the same.\n")


def test_it_reports_what_is_repaired(world: World) -> None:
    people = many(4)
    world.copy(*people[1:])
    world.town.put(people[0])
    world.town.put(changed(people[1], state="inactive"))
    world.town.remove(UUID(people[2]["id"]))

    result = reconcile()

    assert result.exit_code == 0
    assert "1 missing here\n" in result.stdout
    assert "1 different here (state 1, updated_at 1)\n" in result.stdout
    assert "1 here, and deleted in Kratos\n" in result.stdout
    assert "3 are being repaired.\n" in result.stdout
    world.consume()
    assert world.alive() == world.listing()


def test_a_dry_run_reports_what_would_be_repaired(world: World) -> None:
    world.town.put(person())
    result = reconcile("--dry-run")
    assert "1 would be repaired.\n" in result.stdout
    assert world.events() == []


def test_the_json_has_the_documented_keys(world: World) -> None:
    people = many(3)
    world.copy(*people)
    world.town.put(changed(people[0], state="inactive"))
    document = document_of(reconcile("--json"))
    assert 0 < document.pop("seconds") < 60
    assert document.pop("started_at").endswith("Z")
    for later in ("unheard",):
        document.pop(later, None)
    assert document == {
        "dry_run": False,
        "outcome": "completed",
        "resumed": False,
        "held": 3,
        "pages": 1,
        "identities": 3,
        "known": 3,
        "missing": 0,
        "stale": 1,
        "unseen": 0,
        "gone": 0,
        "fields": {"state": 1, "updated_at": 1},
        "unreadable": 0,
    }


def test_verbose_names_identities_and_fields_once_and_never_values(world: World) -> None:
    people = many(3)
    world.copy(*people[1:])
    world.town.put(people[0])
    world.town.put(changed(people[1], traits={"email": "secret@example.org"}))
    world.town.remove(UUID(people[2]["id"]))

    result = reconcile("--verbose", "--json")

    assert result.stderr.count(f"{people[0]['id']}  missing here\n") == 1
    assert result.stderr.count(f"{people[1]['id']}  differs: traits, updated_at\n") == 1
    assert result.stderr.count(f"{people[2]['id']}  deleted in Kratos\n") == 1
    assert document_of(result)["gone"] == 1
    assert "example.org" not in result.output


def test_refused_deletions_are_a_failure_and_delete_nothing(
    world: World, kratos: AdminStandIn
) -> None:
    world.copy(*many(3))
    kratos.always = nothing

    result = reconcile("--json", "--allow-deletes", "1000")

    assert result.exit_code == 1
    assert result.stderr.endswith("Error: No identity was deleted: Kratos lists no identity.\n")
    assert document_of(result)["outcome"] == "refused: Kratos lists no identity"
    assert len(world.alive()) == 3


def test_allow_deletes_raises_the_limit_of_deletions(world: World) -> None:
    people = many(12)
    world.copy(*people)
    for document in people[:11]:
        world.town.remove(UUID(document["id"]))

    refused = reconcile()
    assert refused.exit_code == 1
    assert "11 of 12 are not listed, and at most 10 may go" in refused.stderr
    assert reconcile("--allow-deletes", "11").exit_code == 0
    world.consume()
    assert len(world.alive()) == 1


def test_another_kratos_is_recognized_by_its_schemas(world: World) -> None:
    people = many(3)
    world.copy(*people)
    for document in people:
        world.town.put(changed(document, schema_url="https://other.example.org/schemas/x"))

    result = reconcile()

    assert result.exit_code == 1
    assert "if Kratos has moved, set KRATOS_PUBLIC_URL" in result.stderr
    assert reconcile(KRATOS_PUBLIC_URL="https://third.example.org").exit_code == 1
    assert reconcile(KRATOS_PUBLIC_URL="https://other.example.org").exit_code == 0


def test_the_browser_url_shows_that_kratos_has_moved(world: World) -> None:
    people = many(3)
    world.copy(*people)
    for document in people:
        world.town.put(changed(document, schema_url="https://other.example.org/schemas/x"))
    inside = "http://kratos:4433"

    refused = reconcile(KRATOS_PUBLIC_URL=inside)
    assert refused.exit_code == 1
    assert "KRATOS_BROWSER_URL to https://other.example.org" in refused.stderr
    moved = reconcile(KRATOS_PUBLIC_URL=inside, KRATOS_BROWSER_URL="https://other.example.org")
    assert moved.exit_code == 0


def test_a_public_url_that_schemas_do_not_use_is_accepted(world: World) -> None:
    world.copy(*many(3))
    assert reconcile(KRATOS_PUBLIC_URL="http://kratos:4433").exit_code == 0


def test_a_404_from_a_proxy_deletes_nothing(world: World, kratos: AdminStandIn) -> None:
    people = many(3)
    world.copy(*people)
    world.town.remove(UUID(people[0]["id"]))
    kratos.next(None, says(b"<h1>404 Not Found</h1>", 404))

    result = reconcile()

    assert result.exit_code == 1
    assert "it answered 404: is KRATOS_ADMIN_URL right?" in result.stderr
    world.consume()
    assert len(world.alive()) == 3


def test_failed_calls_to_kratos_are_retried(world: World, kratos: AdminStandIn) -> None:
    two_pages_that_differ(world)
    kratos.next(too_many("1"), broken(503), None, cut_at(100))

    document = document_of(reconcile("--json"))

    assert (document["outcome"], document["identities"]) == ("completed", ENOUGH)
    assert document["seconds"] > 1
    assert len(kratos.seen) == 5


def test_calls_to_kratos_keep_to_the_rate(world: World) -> None:
    people = many(8)
    world.copy(*people)
    for document in people[1:]:
        world.town.remove(UUID(document["id"]))
    assert document_of(reconcile("--json", "--rate", "20"))["seconds"] > 7 / 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_page_and_the_same_command_resumes(
    world: World, kratos: AdminStandIn, number: signal.Signals
) -> None:
    before = two_pages_that_differ(world)
    after(kratos, 1, lambda: os.kill(os.getpid(), number))
    # In a shell's background SIGINT is ignored from the start, and then it stays so.
    kept = signal.signal(number, signal.SIG_DFL)
    try:
        result = reconcile("--json")
    finally:
        signal.signal(number, kept)
    assert (result.exit_code, document_of(result)["outcome"]) == (1, "failed: Interrupted")
    assert (document_of(result)["pages"], len(world.events()) - before) == (1, 500)

    document = document_of(reconcile("--json"))
    assert (document["resumed"], document["pages"], document["stale"]) == (True, 2, ENOUGH)
    assert len(world.events()) - before == ENOUGH


@pytest.mark.parametrize("requests", [1, 2, 3])
def test_after_a_kill_it_resumes_and_records_nothing_twice(
    world: World, kratos: AdminStandIn, requests: int
) -> None:
    before = two_pages_that_differ(world)
    gone = next(iter(world.town.documents))
    world.town.remove(gone)
    for document in many(500):  # so that both pages are full, whoever was on them
        world.town.put(document)
    started: list[subprocess.Popen[str]] = []

    def kill() -> None:
        started[0].kill()

    after(kratos, requests, kill)
    command = [*KRATOS_SYNC, "reconcile"]
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    started.append(process)
    with process:
        assert process.wait(DEADLINE_SECONDS) == -signal.SIGKILL

    result = reconcile("--json")
    assert document_of(result)["outcome"] == "completed"
    events = world.events()[before:]
    assert len(events) == len(set(events)) == len(world.town.documents) + 1
    world.consume()
    assert world.alive() == world.listing()


def test_another_running_reconciliation_is_an_error(world: World) -> None:
    with world.reconciliations.begin(dry_run=False):
        result = reconcile()
    assert (result.exit_code, result.stdout) == (1, "Nothing was compared.\n")
    assert result.stderr.endswith("Error: another reconciliation is at work.\n")


def test_after_losing_the_database_it_fails_and_can_be_resumed(
    world: World, kratos: AdminStandIn
) -> None:
    before = two_pages_that_differ(world)
    after(kratos, 2, lambda: lose_connection(world))

    result = reconcile("--json")
    assert result.exit_code == 1
    assert "PostgreSQL" in result.stderr
    assert document_of(result)["outcome"].startswith("failed: PostgreSQL")

    assert document_of(reconcile("--json"))["resumed"] is True
    assert len(world.events()) - before == ENOUGH


@pytest.mark.parametrize(
    "arguments",
    [("--every", "1s"), ("--rate", "0"), ("--allow-deletes", "-1"), ("--every", "1h", "--dry-run")],
)
def test_wrong_use_has_its_own_exit_code(arguments: tuple[str, ...]) -> None:
    assert reconcile(*arguments).exit_code == 2


def test_without_an_admin_url_it_is_wrong_use() -> None:
    result = reconcile(KRATOS_ADMIN_URL=None)
    assert result.exit_code == 2
    assert "KRATOS_ADMIN_URL is not set" in result.stderr


@contextmanager
def opened_container_kept() -> Iterator[Container]:
    """A container as a command opens it; logging stays as it was."""
    with process_state_kept(), opened_container() as container:
        yield container


def reconciler(container: Container) -> Reconciler:
    return Reconciler(container, None, ON_SCHEDULE)


def for_a_while(every: timedelta, until: Callable[[list[Outcome]], bool]) -> list[Outcome]:
    """Reconcile for ever, until the outcomes are enough."""
    outcomes: list[Outcome] = []

    def collect(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if until(outcomes):
            os.kill(os.getpid(), signal.SIGTERM)

    with opened_container_kept() as container:
        for_ever(reconciler(container), every, 0, collect)
    return outcomes


def test_every_reconciles_again_when_it_is_due(world: World) -> None:
    world.town.put(person())
    found = for_a_while(timedelta(seconds=0.2), lambda outcomes: len(outcomes) == 2)
    assert [each.outcome for each in found] == ["completed", "completed"]
    first, second = (each.started_at for each in found)
    assert first is not None
    assert second is not None
    assert second - first >= timedelta(seconds=0.2)


def recorded(engine: Engine) -> list[Operation]:
    return list(PostgresOperations(engine).newest(OperationFilter(), 9))


def test_a_reconciliation_is_an_operation_and_a_dry_run_is_none(
    world: World, engine: Engine
) -> None:
    world.town.put(person())
    assert reconcile("--dry-run").exit_code == 0
    assert recorded(engine) == []

    reason = ("--by", "ada", "--reason", "an import", "--allow-deletes", "5")
    assert reconcile(*reason).exit_code == 0
    (operation,) = recorded(engine)
    assert (operation.operation, operation.by, operation.reason) == (
        "reconcile",
        "ada",
        "an import",
    )
    assert (operation.outcome, operation.done) == (HowItEnded.COMPLETED, 1)
    assert operation.scope == {"allow_deletes": 5}
    assert operation.result == {"missing": 1, "stale": 0, "deleted": 0, "unlisted": 0}


def test_one_that_deleted_nobody_failed_and_its_reason_is_recorded(
    world: World, engine: Engine
) -> None:
    world.copy(*many(3))
    for document in list(world.town.documents):
        world.town.remove(document)
    assert reconcile().exit_code == 1
    assert [(each.outcome, each.result["error"]) for each in recorded(engine)] == [
        (HowItEnded.FAILED, "DeletesRefused")
    ]


def test_on_a_schedule_only_those_that_repaired_something_are_operations(
    world: World, engine: Engine
) -> None:
    world.copy(person())

    def is_enough(outcomes: list[Outcome]) -> bool:
        if len(outcomes) == 1:
            assert recorded(engine) == []
            world.town.put(person())
        return len(outcomes) == 2

    for_a_while(timedelta(seconds=0.2), is_enough)
    assert [(each.how, each.outcome) for each in recorded(engine)] == [
        (How.SCHEDULE, HowItEnded.COMPLETED)
    ]


def test_one_that_is_cancelled_stops_after_its_page_and_is_resumed(
    world: World, engine: Engine, kratos: AdminStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_pages_that_differ(world)
    monkeypatch.setattr("kratos_sync.application.operations.BEAT_SECONDS", 0.01)
    operations = PostgresOperations(engine)

    def cancel() -> None:
        (running,) = operations.newest(OperationFilter(only_running=True), 9)
        assert operations.request_cancel(running.id, "grace")

    after(kratos, 1, cancel)
    kratos.next(too_many(1))
    result = reconcile()
    assert result.exit_code == 1
    assert "Cancelled by grace." in result.stderr
    (cancelled,) = recorded(engine)
    assert (cancelled.outcome, cancelled.done) == (HowItEnded.CANCELLED, 0)

    resumed = kratos_sync("audit", "resume", str(cancelled.id), "--yes")
    assert (resumed.exit_code, f"{ENOUGH} done" in resumed.stdout) == (0, True)
    assert [each.outcome for each in recorded(engine)] == [
        HowItEnded.COMPLETED,
        HowItEnded.CANCELLED,
    ]


def test_every_skips_while_a_recent_reconciliation_exists(
    world: World, kratos: AdminStandIn
) -> None:
    reconcile()
    with opened_container_kept() as container:
        assert not reconciler(container).is_due(timedelta(hours=1))
        assert reconciler(container).is_due(timedelta(0))


def test_every_reports_a_failure_and_tries_again(world: World, kratos: AdminStandIn) -> None:
    two_pages_that_differ(world)
    kratos.next(None, broken(401))
    found = for_a_while(timedelta(seconds=0.2), lambda outcomes: len(outcomes) == 2)
    assert found[0].went_wrong == "Kratos' Admin API cannot be used: it answered 401."
    assert (found[1].outcome, found[1].resumed) == ("completed", True)


def test_every_reports_nothing_while_another_is_running(world: World) -> None:
    held = world.reconciliations.begin(dry_run=True)
    held.__enter__()
    looks = 0

    class Looking(Reconciler):
        def run(self, *arguments: Any) -> Outcome:
            nonlocal looks
            looks += 1
            if looks == 2:
                held.__exit__(None, None, None)
            return super().run(*arguments)

    outcomes: list[Outcome] = []

    def collect(outcome: Outcome) -> None:
        outcomes.append(outcome)
        os.kill(os.getpid(), signal.SIGTERM)

    with opened_container_kept() as container:
        for_ever(Looking(container, None, ON_SCHEDULE), timedelta(seconds=0.2), 0, collect)
    assert looks == 2
    assert [each.outcome for each in outcomes] == ["completed"]


def test_processes_with_every_check_at_different_times(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    class Interrupted(ShutdownSignals):
        def pause(self, seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 20:
                raise ShutdownRequested

    monkeypatch.setattr(reconcile_run, "ShutdownSignals", Interrupted)
    with opened_container_kept() as container:
        waiting = reconciler(container)
        monkeypatch.setattr(waiting, "is_due", lambda every: False)
        for_ever(waiting, timedelta(hours=1), 0, lambda _: None)
    assert len(set(pauses)) == 20
    assert 6 <= min(pauses) <= max(pauses) <= 60


def test_progress_is_logged_with_the_rate(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile_run, "LOG_SECONDS", 0.0)
    for document in many(ENOUGH):
        world.town.put(document)
    logs = LogCapture()
    monkeypatch.setattr(reconcile_run, "log", structlog.wrap_logger(None, processors=[logs]))
    with opened_container_kept() as container:
        reconciler(container).run(True, 0, lambda _: None)
    (line, *_) = [each for each in logs.entries if each["identities"]]
    assert line["identities"] == 500
    assert line["a_second"] > 0
    assert line["seconds_left"] == 0


def test_findings_have_the_times_of_the_database(world: World, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA ahead")
        connection.exec_driver_sql(
            f"ALTER DATABASE {engine.url.database} SET search_path = ahead, pg_catalog"
        )
        connection.exec_driver_sql(
            "CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql"
            " AS $$ SELECT pg_catalog.clock_timestamp() + interval '1 day' $$"
        )
    world.town.put(person())

    result = reconcile()

    assert result.exit_code == 0, result.stderr
    (found,) = world.ledger.events.values()
    assert found.occurred_at - datetime.now(UTC) > timedelta(hours=23)


def test_another_kratos_is_not_reported_as_the_same() -> None:
    refused = Outcome(
        dry_run=False,
        findings=Findings(held=3),
        went_wrong="No identity was deleted: another Kratos.",
    )

    assert "the same" not in "".join(in_words(refused))
    assert "They are the same." in in_words(Outcome(dry_run=False, findings=Findings(held=3)))
