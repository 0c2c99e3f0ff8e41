"""`kratos-sync show`."""

import json
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from tests.api.cli.invoking import kratos_sync
from tests.domain.people import ADA
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, updated

pytestmark = pytest.mark.usefixtures("settings")


@pytest.fixture(autouse=True)
def _ada(engine: Engine) -> None:
    ledger, event = PostgresLedger(engine), updated(1)
    ledger.publish(event, WEBHOOK)
    deliver(Batch(SyncKratosIdentity, [event.id], ledger.unit_of_work(), ledger))


def test_a_copy_is_shown_without_what_is_personal() -> None:
    result = kratos_sync("show", str(ADA))

    assert result.exit_code == 0
    assert "active, version 1" in result.stdout
    assert "ada@example.org" not in result.stdout


def test_the_persons_data_is_shown_when_it_is_asked_for() -> None:
    result = kratos_sync("show", str(ADA), "--traits")

    assert result.exit_code == 0
    assert '"email": "ada@example.org"' in result.stdout


@pytest.mark.parametrize("options", [(), ("--traits",)])
def test_json_is_one_object(options: tuple[str, ...]) -> None:
    result = kratos_sync("show", str(ADA), "--json", *options)

    document = json.loads(result.stdout)
    assert (document["identity_id"], document["state"]) == (str(ADA), "active")
    assert ("traits" in document) is bool(options)


def test_an_identity_that_is_not_known_is_a_failure() -> None:
    nobody = uuid4()

    result = kratos_sync("show", str(nobody))

    assert result.exit_code == 1
    assert f"There is no copy of an identity {nobody}." in result.stderr
