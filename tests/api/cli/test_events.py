"""`kratos-sync events`, which needs no database."""

import json

import pytest

from kratos_sync.domain.events import EVENTS
from tests.api.cli.invoking import kratos_sync


def test_all_events_are_listed_with_what_they_mean() -> None:
    result = kratos_sync("events")

    assert result.exit_code == 0
    for name, kind in EVENTS.items():
        assert f"{name}  {kind.__name__}" in result.stdout
    assert "  A person has just made an account." in result.stdout


@pytest.mark.parametrize("name", ["identity.address_verified", "AddressVerified"])
def test_one_is_described_by_either_name(name: str) -> None:
    result = kratos_sync("events", name)

    assert "  verified_at: When it was verified." in result.stdout
    assert '"via": "email"' in result.stdout
    assert "identity.registered" not in result.stdout


def test_the_schemas_are_json() -> None:
    assert set(json.loads(kratos_sync("events", "--json").stdout)) == set(EVENTS)
    one = json.loads(kratos_sync("events", "IdentityDeleted", "--json").stdout)
    assert list(one) == ["identity.deleted"]


def test_the_asyncapi_document_is_json() -> None:
    assert json.loads(kratos_sync("events", "--asyncapi").stdout)["asyncapi"] == "3.0.0"


def test_an_unknown_event_is_wrong_use() -> None:
    result = kratos_sync("events", "identity.merged")

    assert result.exit_code == 2
    assert "there is no event identity.merged" in result.stderr
