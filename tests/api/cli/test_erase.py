import json
from uuid import uuid4

import pytest
from click.testing import Result
from sqlalchemy import Engine

from kratos_sync.testing.kratos import InMemoryDocuments
from tests.api.cli.invoking import kratos_sync
from tests.infrastructure.erasure.life import Life
from tests.kratos.admin_stand_in import AdminStandIn
from tests.suites.ledgers import PostgresLedger

pytestmark = pytest.mark.usefixtures("settings")


@pytest.fixture
def life(engine: Engine) -> Life:
    somebody = Life(PostgresLedger(engine))
    somebody.live()
    return somebody


def erase(life: Life, *options: str, typed: str | None = None) -> Result:
    return kratos_sync("erase", str(life.id), "--reason", "by letter", *options, typed=typed)


def test_it_erases_and_says_what(life: Life, kratos: AdminStandIn) -> None:
    result = erase(life, "--yes")

    assert result.exit_code == 0, result.output
    assert "there is: 1 in kratos_identities, " in result.stdout
    assert "Erased: the payloads of " in result.stdout
    assert life.left() == []
    assert [seen.method for seen in kratos.seen] == ["GET"]


def test_the_history_shows_who_erased_it_and_why(life: Life) -> None:
    erase(life, "--yes", "--by", "ada")

    shown = kratos_sync("history", str(life.id))
    report = json.loads(kratos_sync("history", str(life.id), "--json").stdout)

    assert shown.exit_code == 0
    assert "ERASED by ada" in shown.stdout
    assert "DELETED, version" in shown.stdout
    assert (report["erasure"]["by"], report["erasure"]["reason"]) == ("ada", "by letter")
    assert report["identity"]["forgotten_at"]
    erased = [event for event in report["events"] if event["erased_at"]]
    assert {event["name"] for event in erased} >= {"kratos_identity.updated", "identity.registered"}


def test_an_erased_event_has_no_payload(life: Life) -> None:
    erase(life, "--yes")
    report = json.loads(kratos_sync("history", str(life.id), "--json").stdout)
    event = report["events"][0]["id"]

    shown = kratos_sync("failed", "show", event, "--payload")

    assert shown.exit_code == 0
    assert "nothing of its payload is left" in shown.stdout
    document = json.loads(kratos_sync("failed", "show", event, "--payload", "--json").stdout)
    assert document["event"]["payload"] == {}
    assert document["event"]["erased_at"]


def test_a_dry_run_only_counts(life: Life) -> None:
    before = life.left()

    result = erase(life, "--dry-run", "--json")

    report = json.loads(result.stdout)
    assert (report["dry_run"], report["completed"], report["kratos"]) == (True, False, "not asked")
    assert report["found"]["kratos_identities"] == 1
    assert report["found"]["events"] > 5
    assert report["erased"] == {"events": 0, "deliveries": 0, "texts": 0}
    assert life.left() == before


def test_without_a_terminal_it_needs_yes(life: Life) -> None:
    result = erase(life)

    assert result.exit_code == 2
    assert life.left()


def test_without_an_admin_url_it_reports_that_kratos_was_not_asked(life: Life) -> None:
    result = erase(life, "--yes")

    assert result.exit_code == 0
    assert "Kratos could not be asked: KRATOS_ADMIN_URL is not set." in result.stderr


def test_an_identity_that_kratos_still_has_is_only_erased_with_anyway(
    life: Life, kratos: AdminStandIn
) -> None:
    assert isinstance(kratos.people, InMemoryDocuments)
    kratos.people.put(life.document())

    refused = erase(life, "--yes")
    assert refused.exit_code == 1
    assert f"kratos-sync delete {life.id} --erase" in refused.stderr
    assert life.left()

    assert erase(life, "--yes", "--anyway").exit_code == 0
    assert life.left() == []
    assert life.id in kratos.people.documents


def test_an_unavailable_kratos_is_only_ignored_with_anyway(
    life: Life, kratos: AdminStandIn
) -> None:
    kratos.authorization = "Bearer another"

    refused = erase(life, "--yes")

    assert refused.exit_code == 1
    assert "--anyway" in refused.stderr
    assert life.left()
    assert erase(life, "--yes", "--anyway").exit_code == 0


def test_an_unknown_identity_is_a_failure(engine: Engine) -> None:
    result = kratos_sync("erase", str(uuid4()), "--reason", "by letter", "--yes")

    assert result.exit_code == 1
    assert "Nothing is known of an identity" in result.stderr


def test_a_reason_is_required() -> None:
    assert kratos_sync("erase", str(uuid4()), "--yes").exit_code == 2
    assert kratos_sync("erase", str(uuid4()), "--reason", " ", "--yes").exit_code == 2
