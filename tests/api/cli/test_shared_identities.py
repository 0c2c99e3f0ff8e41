"""Commands where several deployments share the identities of one Kratos."""

import json
from collections.abc import Iterator
from uuid import UUID

import pytest
from dependency_injector import providers
from sqlalchemy import Engine

from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.settings import Settings
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.api.cli.invoking import kratos_sync
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, hinted

pytestmark = pytest.mark.usefixtures("settings")

OURS = UUID("3280695c-9cfc-4f35-bc67-150e11d35f6d")
THEIRS = UUID("e52e75c7-afbb-4316-a4ef-3977a428a2ca")
ELSEWHERE = "another deployment holds this identity: IDENTITY_IDS is 0-7 here"


@pytest.fixture(autouse=True)
def kratos(monkeypatch: pytest.MonkeyPatch) -> Iterator[AdminStandIn]:
    with AdminStandIn(InMemoryDocuments([person(OURS), person(THEIRS)])) as stand_in:
        monkeypatch.setenv("KRATOS_ADMIN_URL", stand_in.url)
        monkeypatch.setenv("IDENTITY_IDS", "0-7")
        yield stand_in


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


def subjects(ledger: PostgresLedger) -> list[UUID]:
    return [event.subject for event in ledger.events.values()]


def test_reconcile_compares_what_is_held(ledger: PostgresLedger) -> None:
    found = json.loads(kratos_sync("reconcile", "--json").stdout)

    assert (found["identities"], found["missing"]) == (1, 1)
    assert subjects(ledger) == [OURS]


def test_sync_refuses_an_identity_of_others(ledger: PostgresLedger) -> None:
    done = kratos_sync("sync", str(OURS), str(THEIRS))

    assert done.exit_code == 1
    assert f"{OURS}  updated\n{THEIRS}  refused: {ELSEWHERE}\n" in done.output
    assert subjects(ledger) == [OURS]


def test_delete_refuses_an_identity_of_others(ledger: PostgresLedger) -> None:
    done = kratos_sync("delete", str(THEIRS), "--yes")

    assert done.exit_code == 1
    assert ELSEWHERE in done.output
    assert subjects(ledger) == []
    assert kratos_sync("delete", str(OURS), "--yes").exit_code == 0
    assert subjects(ledger) == [OURS]


@pytest.mark.usefixtures("ledger")
def test_erase_says_that_an_unknown_identity_may_be_elsewhere() -> None:
    theirs = kratos_sync("erase", str(THEIRS), "--reason", "asked to", "--yes")
    ours = kratos_sync("erase", str(OURS), "--reason", "asked to", "--yes")

    assert (theirs.exit_code, ours.exit_code) == (1, 1)
    assert ELSEWHERE in theirs.output
    assert "another deployment" not in ours.output


def test_a_hint_about_an_identity_of_others_is_a_dead_letter_at_once(
    ledger: PostgresLedger, database_url: str, kratos: AdminStandIn
) -> None:
    container = Container()
    settings = Settings(
        _env_file=None,
        database_url=database_url,
        identity_ids="0-7",
        kratos_admin_url=kratos.url,
    )
    container.settings.override(providers.Object(settings))
    hint = hinted(1)
    assert hint.subject == THEIRS
    ledger.publish(hint, WEBHOOK)

    deliver(Batch(FetchKratosIdentity, [hint.id], container.unit_of_work(), ledger))
    container.engine().dispose()

    (attempt,) = ledger.attempts
    assert attempt.outcome == "gave_up"
    assert attempt.error is not None
    assert attempt.error.endswith(f"HeldElsewhere: {ELSEWHERE}")
    assert not kratos.seen


@pytest.mark.parametrize("given", ["0-7,9", "x", "8-7", "0-"])
def test_ids_that_cannot_be_read_are_one_sentence(given: str) -> None:
    done = kratos_sync("status", IDENTITY_IDS=given)

    assert done.exit_code == 2
    assert "IDENTITY_IDS: Value error, " in done.output
    assert "Traceback" not in done.output
