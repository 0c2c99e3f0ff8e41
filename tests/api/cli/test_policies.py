"""`kratos-sync pause`, `resume` and `limit`."""

import pytest
from sqlalchemy import Engine

from kratos_sync.application.ports.policies import ConsumerPolicy
from kratos_sync.infrastructure.ledger.policies import PostgresConsumerPolicies
from tests.api.cli.invoking import kratos_sync

pytestmark = pytest.mark.usefixtures("settings")
SYNC = "SyncKratosIdentity"


@pytest.fixture
def policies(engine: Engine) -> PostgresConsumerPolicies:
    return PostgresConsumerPolicies(engine)


def test_a_pause_is_shown_by_status_until_it_is_over(policies: PostgresConsumerPolicies) -> None:
    result = kratos_sync("pause", SYNC, "--reason", "a migration", "--by", "ada")
    assert result.exit_code == 0
    assert f"{SYNC} is paused." in result.stdout
    assert policies.all()[SYNC].paused_at is not None

    shown = kratos_sync("status").stdout
    assert f"{SYNC} has been paused by ada since " in shown
    assert ": a migration. 0 deliveries pending." in shown

    assert "is resumed" in kratos_sync("resume", SYNC).stdout
    assert "was not paused" in kratos_sync("resume", SYNC).stdout
    assert "paused" not in kratos_sync("status").stdout


def test_limits_are_set_and_reset(policies: PostgresConsumerPolicies) -> None:
    result = kratos_sync("limit", SYNC, "--rate", "100/minute", "--concurrency", "2")
    assert result.exit_code == 0
    assert f"{SYNC}: rate 100/minute, concurrency 2." in result.stdout
    assert policies.all() == {SYNC: ConsumerPolicy(rate="100/minute", concurrency=2)}

    assert "as its class says" in kratos_sync("limit", SYNC, "--reset").stdout
    assert policies.all() == {SYNC: ConsumerPolicy()}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("pause", "Nobody", "--reason", "x"), "there is no consumer Nobody"),
        (("pause", SYNC), "--reason"),
        (("pause", SYNC, "--reason", " "), "say why"),
        (("resume", "Nobody"), "there is no consumer Nobody"),
        (("limit", SYNC), "say --rate, --concurrency or both; or --reset"),
        (("limit", SYNC, "--reset", "--rate", "1/hour"), "say --rate"),
        (("limit", SYNC, "--rate", "fast"), "'fast' is no rate such as"),
        (("limit", SYNC, "--concurrency", "0"), "--concurrency"),
    ],
)
def test_wrong_use_is_refused(
    policies: PostgresConsumerPolicies, arguments: tuple[str, ...], complaint: str
) -> None:
    result = kratos_sync(*arguments)

    assert result.exit_code == 2
    assert complaint in result.stderr
    assert policies.all() == {}
