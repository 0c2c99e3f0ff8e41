"""What a webhook may say of an identity, and what only Kratos' Admin API can."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from uuid_utils.compat import uuid7

from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import Page
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.fields import to_rfc3339
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT
from kratos_sync.testing.kratos import Document
from tests.kratos.persons import person
from tests.suites.ledgers import PostgresLedger
from tests.suites.reconciling import World, world_in_memory, world_on_postgres

FAR_AHEAD = "9999-01-01T00:00:00Z"


@pytest.fixture(params=["in memory", "PostgreSQL"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "in memory":
        return world_in_memory()
    return world_on_postgres(request.getfixturevalue("engine"))


@pytest.fixture
def ada(world: World) -> Document:
    """Somebody whom Kratos has, and who is the same here."""
    document = person(metadata_admin={"plan": "gold"}, traits={"n": 2**53 + 1})
    world.copy(document)
    return document


def id_of(document: Document) -> UUID:
    return UUID(document["id"])


def forge(world: World, document: Document) -> None:
    """Record a webhook that says all of this, as one that was recorded by an older release."""
    event = KratosIdentityUpdated(uuid7(), world.now(), Identity.from_admin_api(document))
    world.ledger.publish(event, Provenance("webhook"))
    world.consume()


def heal(world: World) -> dict[str, int]:
    """Reconcile: afterwards all is as in Kratos, and stays so. What was found, by its kind."""
    found = world.reconcile()
    assert (found.stale, found.missing) == (1, 0)
    world.consume()
    assert world.alive() == world.listing()
    events = len(world.ledger.events)
    assert world.reconcile().repairs == 0
    assert len(world.ledger.events) == events
    return found.missed_webhooks


def test_a_webhook_with_metadata_for_administrators_is_like_any_other(
    world: World, ada: Document
) -> None:
    lies = {"metadata_admin": {"plan": "lies"}, "traits": {"n": 2**53}}
    said = {**ada, **lies}
    del said["verifiable_addresses"]
    forge(world, said)

    assert world.alive() == world.listing()


def test_a_webhook_with_admin_metadata_revives_no_tombstone(world: World, ada: Document) -> None:
    world.copy(person())
    world.town.remove(id_of(ada))
    world.reconcile()
    world.consume()

    forge(world, {**ada, "updated_at": to_rfc3339(world.now())})

    assert world.rows()[id_of(ada)].deleted_at is not None
    assert world.rows()[id_of(ada)].traits is ABSENT


@pytest.mark.parametrize("ahead", [timedelta(seconds=2), timedelta(hours=5), None])
def test_reconciling_heals_an_identity_newer_here(
    world: World, ada: Document, ahead: timedelta | None
) -> None:
    now = world.now()
    updated_at = FAR_AHEAD if ahead is None else to_rfc3339(now + ahead)
    world.receive({**ada, "updated_at": updated_at, "state": "inactive"})
    assert world.alive() != world.listing()

    assert heal(world) == {"newer": 1}


def test_reconciling_heals_an_address_that_was_forged_to_be_verified(
    world: World, ada: Document
) -> None:
    (address,) = ada["verifiable_addresses"]
    proof = {"verified": True, "status": "completed", "verified_at": to_rfc3339(world.now())}
    world.receive({**ada, "verifiable_addresses": [{**address, **proof}]})
    assert world.alive() != world.listing()

    assert heal(world) == {"newer": 1}


def test_reconciling_heals_a_field_that_kratos_does_not_have(world: World, ada: Document) -> None:
    world.receive({**ada, "updated_at": to_rfc3339(world.now()), "pronouns": "forged"})

    heal(world)


def test_a_kratos_that_was_restored_from_a_backup_is_followed(world: World, ada: Document) -> None:
    changed = {**ada, "updated_at": to_rfc3339(world.now()), "traits": {"n": 7}}
    world.receive(changed)
    world.town.put(changed)
    world.reconcile()
    world.consume()
    world.town.put(ada)

    assert heal(world) == {"newer": 1}


def test_a_second_code_for_a_verified_address_is_accepted(world: World, ada: Document) -> None:
    (address,) = ada["verifiable_addresses"]
    proof = {"verified": True, "status": "completed", "verified_at": to_rfc3339(world.now())}
    verified = {**ada, "verifiable_addresses": [{**address, **proof}]}
    world.receive(verified)
    world.town.put({**ada, "verifiable_addresses": [{**address, **proof, "status": "sent"}]})

    assert heal(world) == {"untold": 1}
    world.receive(verified)
    assert world.reconcile().repairs == 0


def test_a_time_in_the_future_does_not_outrank_what_comes_later(
    world: World, ada: Document
) -> None:
    world.receive({**ada, "updated_at": FAR_AHEAD, "state": "inactive"})

    later = to_rfc3339(world.now() + timedelta(seconds=1))
    world.receive({**ada, "updated_at": later, "state": "active"})

    row = world.rows()[id_of(ada)]
    assert (row.state, row.updated_at) == ("active", datetime.fromisoformat(later))


class ChangedMeanwhile:
    """A Kratos in which something happens, and a webhook is received, once a page was read."""

    def __init__(self, world: World, change: Document) -> None:
        self._world, self._change = world, change

    def page(self, token: str | None) -> Page:
        page = self._world.kratos.page(token)
        self._world.town.put(self._change)
        self._world.receive(self._change, consumed=False)
        return page

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.kratos, name)


@pytest.mark.parametrize("webhook_first", [True, False])
def test_what_came_after_the_question_stays(
    world: World, ada: Document, webhook_first: bool
) -> None:
    # Here a forged webhook stands: so the answer changes something.
    world.receive({**ada, "updated_at": FAR_AHEAD, "state": "inactive"})
    change = {**ada, "updated_at": to_rfc3339(world.now()), "metadata_public": {"n": 1}}
    world.admin = ChangedMeanwhile(world, change)  # type: ignore[assignment]  # by __getattr__

    world.reconcile()
    if webhook_first:
        world.consume()
    else:
        consume_newest_first(world)

    world.admin = world.kratos
    assert world.alive() == world.listing()


def consume_newest_first(world: World) -> None:
    newest_first = sorted(world.ledger.deliveries, key=lambda key: key[1], reverse=True)
    for key in newest_first:
        world.consume_only(key)
    world.consume()


def test_an_old_answer_that_is_replayed_undoes_nothing(world: World, ada: Document) -> None:
    old = next(each for each in world.ledger.events.values() if each.source == "reconcile")
    for number in (1, 2):
        world.copy({**ada, "updated_at": to_rfc3339(world.now()), "traits": {"n": number}})
    row = world.rows()[id_of(ada)]

    answer = Identity.from_admin_api(json.loads(old.payload)["identity"])
    again = KratosIdentityUpdated(uuid7(), old.occurred_at, answer)
    world.ledger.publish(again, Provenance("reconcile"))
    world.consume()

    assert world.rows()[id_of(ada)].version == row.version
    assert world.alive() == world.listing()


def test_an_answer_from_the_future_does_not_freeze_a_person(world: World, ada: Document) -> None:
    if not isinstance(world.ledger, PostgresLedger):
        pytest.skip("there is no clock to set back")
    with world.ledger.engine.begin() as connection:
        connection.execute(
            text("UPDATE kratos_sync.kratos_identities SET seen_alive_at = now() + '366 days'")
        )

    world.town.put({**ada, "updated_at": to_rfc3339(world.now()), "state": "inactive"})

    heal(world)


def test_a_deletion_from_the_future_does_not_keep_a_person_deleted(
    world: World, ada: Document
) -> None:
    if not isinstance(world.ledger, PostgresLedger):
        pytest.skip("there is no clock to set back")
    world.copy(person())
    world.town.remove(id_of(ada))
    world.reconcile(allow_deletes=1)
    world.consume()
    with world.ledger.engine.begin() as connection:
        deleted = connection.execute(
            text(
                "UPDATE kratos_sync.kratos_identities SET deleted_at = now() + '366 days'"
                " WHERE deleted_at IS NOT NULL"
            )
        )
        assert deleted.rowcount == 1

    world.town.put(ada)

    heal(world)


NUMBERS = [
    12345678901234567890.0, 1.5e300, 1e300, 1e22, 1e23, -1e300, -0.0, 1e5, 0.1, 5e-324,
    1.7976931348623157e308, 9007199254740993, 9007199254740994.0, 10**400,
]  # fmt: skip


@pytest.mark.parametrize("seen_before", [True, False])
def test_no_number_is_found_different_for_ever(world: World, seen_before: bool) -> None:
    ada = person(traits={"numbers": NUMBERS}, metadata_admin={"numbers": NUMBERS})
    ada |= {"metadata_public": NUMBERS, "shoes": NUMBERS}
    if seen_before:
        world.receive(ada)
    world.copy(ada)
    version = world.rows()[id_of(ada)].version

    assert world.reconcile().repairs == 0
    assert world.rows()[id_of(ada)].version == version
