"""A hook that fails shows: reconciling repairs what it did not send, and `status` says which."""

import json
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from kratos_sync.domain.identity import Identity
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.infrastructure.identities.rows import STORE, to_arrays
from kratos_sync.infrastructure.postgres.engine import driver_of
from kratos_sync.infrastructure.reconciliation.comparison import FIRST
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.api.cli.invoking import kratos_sync
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import THEN, many

PEOPLE = 30
VERIFIED_AT = "2026-07-01T12:00:00Z"


def hold(engine: Engine, documents: list[dict[str, Any]]) -> None:
    identities = [Identity.from_admin_api(document) for document in documents]
    rows = [KratosIdentity.seen(each, at=THEN, cause=FIRST) for each in identities]
    with engine.begin() as connection:
        cursor = psycopg.RawCursor(driver_of(connection))
        cursor.execute(STORE, to_arrays(rows, [0] * len(rows)), binary=True)


def verified(document: dict[str, Any]) -> dict[str, Any]:
    (address,) = document["verifiable_addresses"]
    proof = {"verified": True, "status": "completed", "verified_at": VERIFIED_AT}
    return {**document, "verifiable_addresses": [{**address, **proof}]}


@pytest.mark.parametrize(("number", "is_reported"), [(11, True), (10, False)])
def test_what_a_silent_verification_hook_did_not_send_is_a_rise(
    engine: Engine, database_url: str, broker_url: str, number: int, is_reported: bool
) -> None:
    people = many(PEOPLE)
    hold(engine, people)
    town = InMemoryDocuments(people)
    settings = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    with AdminStandIn(town) as kratos:
        settings["KRATOS_ADMIN_URL"] = kratos.url
        for _ in range(5):
            assert kratos_sync("reconcile", **settings).exit_code == 0
        assert "All is well." in kratos_sync("status", **settings).stdout
        for document in people[:number]:
            town.put(verified(document))
        assert kratos_sync("reconcile", **settings).exit_code == 0

    said = kratos_sync("status", **settings).stdout
    assert (f"repaired {number} missed webhooks" in said) is is_reported
    assert (f"(verification {number})" in said) is is_reported
    shown = kratos_sync("status", "--drift", **settings).stdout
    assert f"{number}  differ in verifiable_addresses: no webhook of a verification" in shown
    drift = json.loads(kratos_sync("status", "--json", **settings).stdout)["drift"]
    newest, *before = drift["reconciliations"]
    assert (newest["unheard"], newest["missed"]) == ({"verification": number}, number)
    assert [each["missed"] for each in before] == [0] * 5
