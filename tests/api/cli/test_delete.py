import json
from collections.abc import Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest
from click.testing import Result
from sqlalchemy import Engine
from structlog.testing import capture_logs

from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.erasure import ErasureSchedule
from kratos_sync.infrastructure.settings import Settings
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.api.cli.invoking import kratos_sync
from tests.infrastructure.bus.working import declare_actor, relaying, working
from tests.infrastructure.erasure.life import Life
from tests.kratos.admin_stand_in import AdminStandIn
from tests.suites.ledgers import PostgresLedger
from tests.waiting import in_a_thread

pytestmark = pytest.mark.usefixtures("settings", "kratos")


@pytest.fixture
def life(engine: Engine, kratos: AdminStandIn) -> Life:
    somebody = Life(PostgresLedger(engine))
    assert isinstance(kratos.people, InMemoryDocuments)
    kratos.people.put(somebody.document())
    somebody.receive()
    somebody.consume_everything()
    return somebody


@pytest.fixture
def at_work(
    container: Container, database_url: str, broker_url: str, kratos: AdminStandIn
) -> Iterator[None]:
    """A relay, with what runs beside it, and a worker."""
    container.settings.override(
        Settings(
            _env_file=None,
            database_url=database_url,
            broker_url=broker_url,
            lease_seconds=5,
            kratos_admin_url=kratos.url,
        )
    )
    declare_actor(container)
    schedule = ErasureSchedule(container.erasures(), container.operations(), look_seconds=0.1)
    with ExitStack() as stack:
        # Else a worker might log to the command's own output, before that sets up its logs.
        stack.enter_context(capture_logs())
        stack.enter_context(working(container.broker()))
        stack.enter_context(relaying(container.relay()))
        stack.enter_context(in_a_thread(schedule.run))
        yield
    container.kratos_admin().close()


def delete(life: Life, *options: str) -> Result:
    return kratos_sync("delete", str(life.id), "--by", "ada", *options)


@pytest.mark.usefixtures("at_work")
def test_it_deletes_here_then_in_kratos_and_erases_in_the_end(
    life: Life, kratos: AdminStandIn
) -> None:
    result = delete(life, "--yes", "--wait", "--erase", "--timeout", "60")

    assert result.exit_code == 0, result.output
    assert "Deleted from Kratos, and erased." in result.stdout
    assert kratos.people.shown(life.id) is None
    assert life.left() == []
    (row,) = life.ledger.query("SELECT deleted_at FROM kratos_sync.kratos_identities")
    assert row["deleted_at"] is not None
    assert life.ledger.query("SELECT by FROM kratos_sync.erasures") == [{"by": "ada"}]


@pytest.mark.usefixtures("at_work")
def test_json_is_one_object(life: Life) -> None:
    result = delete(life, "--yes", "--wait", "--timeout", "60", "--json")

    report = json.loads(result.stdout)
    assert (report["identity_id"], report["by"], report["waited"]) == (str(life.id), "ada", True)
    assert report["deleted_from_kratos"] is True
    assert (report["failed"], report["erased"]) == (False, False)
    assert report["awaited"] == []
    assert report["deleted_here_at"]


def test_without_wait_the_deletion_is_only_requested(life: Life, kratos: AdminStandIn) -> None:
    result = delete(life, "--yes")

    assert result.exit_code == 0
    assert "Workers carry it out" in result.stdout
    assert {consumer for consumer, _ in life.ledger.deliveries} == {
        "ForgetIdentity",
        "DeleteFromKratos",
    }
    assert kratos.people.shown(life.id)


def test_the_wait_ends_at_the_timeout_and_says_what_is_missing(life: Life) -> None:
    result = delete(life, "--yes", "--wait", "--timeout", "1")

    assert result.exit_code == 1
    assert "Not deleted here yet." in result.stdout
    assert "is a worker running?" in result.stderr
    assert "it goes on by itself" in result.stderr


def test_a_dead_letter_that_holds_the_deletion_is_named(life: Life) -> None:
    life.ledger.query(
        "INSERT INTO kratos_sync.deliveries (event_id, consumer, subject, failed_at)"
        " SELECT id, 'SayGoodbye', subject, now() FROM kratos_sync.events LIMIT 1"
    )

    result = delete(life, "--yes", "--wait")

    assert result.exit_code == 1
    assert "Held by ForgetIdentity, SayGoodbye (1 dead letter)" in result.stderr


def test_without_an_admin_url_workers_delete_it_in_kratos_once_they_have_one(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KRATOS_ADMIN_URL")

    result = delete(life, "--yes")

    assert result.exit_code == 0
    assert "In Kratos once a worker has KRATOS_ADMIN_URL, which is not set here" in result.stdout
    assert {name for name, _ in life.ledger.deliveries} == {"ForgetIdentity", "DeleteFromKratos"}


def test_without_a_terminal_it_needs_yes(life: Life) -> None:
    assert delete(life).exit_code == 2
    assert life.ledger.deliveries == {}


def test_an_id_is_a_uuid() -> None:
    assert kratos_sync("delete", f"{uuid4()}x", "--yes").exit_code == 2
