"""`kratos-sync try`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine
from uuid_utils.compat import uuid7

from kratos_sync import Application, Consumer, IdentityRegistered
from tests.api.cli.invoking import kratos_sync
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import WEBHOOK, updated
from tests.testing.acme import RecordingMail

pytestmark = pytest.mark.usefixtures("settings")
SYNC = "SyncKratosIdentity"


class CallTheCrm(Consumer[IdentityRegistered]):
    name = "CallTheCrm"

    async def consume(self, event: IdentityRegistered) -> None: ...


app = Application(subscriptions={IdentityRegistered: [CallTheCrm]})


@pytest.fixture
def ledger(engine: Engine) -> PostgresLedger:
    return PostgresLedger(engine)


@pytest.fixture
def event_id(ledger: PostgresLedger) -> UUID:
    event = updated(1)
    ledger.publish(event, WEBHOOK)
    return event.id


@pytest.fixture
def unchanged(ledger: PostgresLedger, event_id: UUID) -> Iterator[None]:
    """Whatever is tried, the ledger and the copy are as before."""
    yield
    assert ledger.attempts == []
    assert list(ledger.deliveries) == [(SYNC, event_id)]
    assert ledger.query("SELECT id FROM kratos_sync.kratos_identities") == []


@pytest.mark.usefixtures("unchanged")
def test_what_it_would_write_and_raise_is_shown(event_id: UUID) -> None:
    result = kratos_sync("try", SYNC, str(event_id))

    assert result.exit_code == 0, result.output
    assert f"{SYNC} on kratos_identity.updated" in result.stdout
    assert "  kratos_sync.kratos_identities: 1 row inserted" in result.stdout
    assert "  raises identity.registered" in result.stdout
    assert "ada@example.org" not in result.stdout


@pytest.mark.usefixtures("unchanged")
def test_the_raised_events_are_shown_in_full_when_it_is_asked_for(event_id: UUID) -> None:
    assert (
        '"email": "ada@example.org"' in kratos_sync("try", SYNC, str(event_id), "--verbose").stdout
    )


@pytest.mark.usefixtures("unchanged")
def test_json_is_one_object(event_id: UUID) -> None:
    document = json.loads(kratos_sync("try", SYNC, str(event_id), "--json").stdout)

    assert document["writes"] == [
        {
            "table": "kratos_sync.kratos_identities",
            "inserted": 1,
            "updated": 0,
            "deleted": 0,
        }
    ]
    assert document["raised"] == [{"name": "identity.registered"}]
    assert document["error"] is None


def registered(ledger: PostgresLedger, email: str) -> str:
    now = datetime.now(UTC)
    event = IdentityRegistered(uuid7(), now, uuid4(), 1, {"email": email}, now)
    ledger.publish(event, WEBHOOK)
    return str(event.id)


@pytest.fixture
def acme(settings: None, monkeypatch: pytest.MonkeyPatch) -> RecordingMail:
    """Somebody's application; its mail is remembered."""
    mail = RecordingMail()
    monkeypatch.setenv("KRATOS_SYNC_APP", "tests.testing.acme:app")
    monkeypatch.setattr("tests.testing.acme.SmtpMail", lambda: mail)
    assert kratos_sync("migrate").exit_code == 0
    return mail


@pytest.mark.usefixtures("acme")
def test_a_consumer_that_would_fail_shows_its_traceback(ledger: PostgresLedger) -> None:
    result = kratos_sync("try", "KeepSubscribers", registered(ledger, "bad@example.org"))

    assert result.exit_code == 1
    assert "Traceback (most recent call last):" in result.stdout
    assert "ValueError: no subscriber bad@example.org" in result.stdout
    assert "KeepSubscribers would fail. Everything was rolled back." in result.stderr
    assert ledger.attempts == []


def test_an_event_that_the_consumer_does_not_receive_is_not_tried(event_id: UUID) -> None:
    result = kratos_sync("try", "CountRegistrations", str(event_id))

    assert result.exit_code == 1
    assert (
        "Not tried: CountRegistrations is not subscribed to kratos_identity.updated."
        in result.stderr
    )


def test_an_event_that_is_not_recorded_is_a_failure() -> None:
    nothing = uuid4()

    result = kratos_sync("try", SYNC, str(nothing))

    assert result.exit_code == 1
    assert f"Not tried: no event {nothing} is recorded." in result.stderr


def test_an_unknown_consumer_is_wrong_use(event_id: UUID) -> None:
    assert kratos_sync("try", "Nobody", str(event_id)).exit_code == 2


def test_real_effects_need_a_yes(ledger: PostgresLedger, acme: RecordingMail) -> None:
    event_id = registered(ledger, "ada@example.org")

    refused = kratos_sync("try", "SendWelcomeEmail", event_id)
    assert refused.exit_code == 2
    assert "say --yes" in refused.stderr
    assert acme.recipients == []

    tried = kratos_sync("try", "SendWelcomeEmail", event_id, "--yes")
    assert tried.exit_code == 0, tried.output
    assert "writes and raises nothing" in tried.stdout
    assert acme.recipients == ["ada@example.org"]


def test_an_async_consumer_needs_a_yes_whatever_its_ports(
    ledger: PostgresLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRATOS_SYNC_APP", f"{__name__}:app")
    event_id = registered(ledger, "ada@example.org")

    refused = kratos_sync("try", "CallTheCrm", event_id)
    assert refused.exit_code == 2
    assert "say --yes" in refused.stderr

    tried = kratos_sync("try", "CallTheCrm", event_id, "--yes")
    assert tried.exit_code == 0, tried.output
