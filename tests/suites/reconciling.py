"""A Kratos and our copy of it side by side, in memory or on PostgreSQL."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import Engine, text
from uuid_utils.compat import uuid7

from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import KratosAdmin
from kratos_sync.application.ports.reconciliation import Findings, Reconciliations
from kratos_sync.application.reconcile import Reconcile
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.id_range import IdRange
from kratos_sync.domain.identity import PARTS, Identity
from kratos_sync.domain.json_values import ABSENT
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.infrastructure.identities.rows import READ, from_row
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array
from kratos_sync.infrastructure.postgres.engine import driver_of
from kratos_sync.infrastructure.reconciliation.runs import PostgresReconciliations
from kratos_sync.testing.kratos import Document, InMemoryDocuments, InMemoryKratos
from kratos_sync.testing.ledger import InMemoryLedger
from tests.fakes.reconciliations import InMemoryReconciliations
from tests.suites.ledgers import Ledger, PostgresLedger

ROUNDS = 50
OLDER = text("""
    WITH runs AS (
        UPDATE kratos_sync.reconciliations
        SET started_at = started_at - :time, seen_at = seen_at - :time, ended_at = ended_at - :time
    )
    UPDATE kratos_sync.events SET recorded_at = recorded_at - :time
""")


@dataclass
class World:
    """What Kratos has, and what we have of it.

    ``admin`` is `kratos`, or whatever else a test asks. ``found`` collects the differences that
    reconciling named, ``wakes`` counts how often it woke a relay.
    """

    ledger: Ledger
    reconciliations: Reconciliations
    town: InMemoryDocuments = field(default_factory=InMemoryDocuments)
    public_url: str | None = None
    wakes: int = 0
    found: list[tuple[UUID, tuple[str, ...] | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kratos = InMemoryKratos(self.town)
        self.admin: KratosAdmin = self.kratos

    def use_case(self) -> Reconcile:
        return Reconcile(
            self.admin,
            self.reconciliations,
            public_urls=[] if self.public_url is None else [self.public_url],
            now=self.now,
            wake_relay=self._wake,
            pause=lambda _: self.consume(),
        )

    def reconcile(self, *, dry_run: bool = False, allow_deletes: int = 0) -> Findings:
        """Reconcile to the end; what was found."""
        found = Findings()
        for run in self.use_case().run(dry_run=dry_run, allow_deletes=allow_deletes):
            self.found += run.differences
            found = run.findings
        return found

    def receive(self, document: Mapping[str, Any], *, consumed: bool = True) -> None:
        """Take in a webhook that says this; administrators' metadata is not in it."""
        said = {key: value for key, value in document.items() if key != "metadata_admin"}
        event = KratosIdentityUpdated(uuid7(), self.now(), Identity.from_kratos(said))
        self.ledger.publish(event, Provenance("webhook"))
        if consumed:
            self.consume()

    def copy(self, *documents: Document) -> None:
        """Have these people in Kratos, and here the same."""
        for document in documents:
            self.town.put(document)
        self.reconcile()
        self.consume()
        self.found.clear()

    def consume(self) -> None:
        """Deliver to every consumer of the ledger until nothing is pending."""
        kinds = self.ledger.subscriptions.consumers
        for _ in range(ROUNDS):
            deliveries = self.ledger.deliveries.items()
            pending = [key for key, each in deliveries if key[0] in kinds and not each.is_dead]
            if not pending:
                return
            for kind in kinds.values():
                ids = [event_id for name, event_id in pending if name == kind.name]
                if ids:
                    deliver(Batch(kind, ids, self.ledger.unit_of_work(), self.ledger))
        raise AssertionError(f"still pending: {[name for name, _ in pending]}")

    def consume_only(self, key: tuple[str, UUID]) -> None:
        """Deliver one event to a consumer."""
        name, event_id = key
        kind = self.ledger.subscriptions.consumers[name]
        deliver(Batch(kind, [event_id], self.ledger.unit_of_work(), self.ledger))

    def now(self) -> datetime:
        """The ledger's time; in memory each look takes a second."""
        if isinstance(self.ledger, InMemoryLedger):
            self.ledger.now += timedelta(seconds=1)
        return self.ledger.now.astimezone(UTC)

    def pass_time(self, time: timedelta) -> None:
        """Let everything that was done until now be as much longer ago."""
        if isinstance(self.ledger, InMemoryLedger):
            self.ledger.now += time
            return
        assert isinstance(self.ledger, PostgresLedger)
        with self.ledger.engine.begin() as connection:
            connection.execute(OLDER, {"time": time})

    def rows(self) -> dict[UUID, KratosIdentity]:
        """Our copies, tombstones too."""
        if isinstance(self.ledger, InMemoryLedger):
            return {each.id: each for each in self.ledger.identities}
        assert isinstance(self.ledger, PostgresLedger)
        with self.ledger.engine.begin() as connection:
            cursor = psycopg.RawCursor(driver_of(connection))
            ids = cursor.execute(b"SELECT id FROM kratos_sync.kratos_identities").fetchall()
            rows = cursor.execute(READ, [uuid_array(row[0] for row in ids)]).fetchall()
            return {each.id: each for each in map(from_row, rows)}

    def events(self) -> list[tuple[str, UUID]]:
        """What reconciling recorded: names and subjects, in order."""
        recorded = self.ledger.events.values()
        return [(each.name, each.subject) for each in recorded if each.source == "reconcile"]

    def alive(self) -> dict[UUID, dict[str, object]]:
        """Every column about a person, of those who are alive here."""
        return {
            identity_id: held_of(row)
            for identity_id, row in self.rows().items()
            if row.deleted_at is None
        }

    def listing(self) -> dict[UUID, dict[str, object]]:
        """What these columns must be where the copy is right."""
        found: dict[UUID, dict[str, object]] = {}
        token: str | None = None
        while True:
            page = self.admin.page(token)
            listed = map(Identity.from_admin_api, json.loads(page.identities))
            found |= {identity.id: said_of(identity) for identity in listed}
            token = page.next
            if token is None:
                return found

    def _wake(self) -> None:
        self.wakes += 1


def held_of(row: KratosIdentity) -> dict[str, object]:
    return {
        **{name: _comparable(name, getattr(row, name)) for name in (*PARTS, "updated_at")},
        "unknown": dict(row.unknown),
    }


def said_of(identity: Identity) -> dict[str, object]:
    return {
        **{name: _comparable(name, getattr(identity, name)) for name in (*PARTS, "updated_at")},
        "unknown": dict(identity.unknown),
    }


def _comparable(name: str, value: object) -> object:
    if name.endswith("_addresses"):
        return () if value is ABSENT else value
    if name in {"traits", "metadata_public", "metadata_admin"}:
        return value
    return None if value is ABSENT else value


def world_in_memory() -> World:
    ledger = InMemoryLedger()
    return World(ledger, InMemoryReconciliations(ledger))


def world_on_postgres(engine: Engine, direct_engine: Engine | None = None) -> World:
    """Behind a pooler reconciliations need connections past it."""
    return World(PostgresLedger(engine), PostgresReconciliations(direct_engine or engine))


def share(world: World, ids: IdRange) -> None:
    """From now on hold these identities only, whatever the tables have."""
    if isinstance(world.ledger, InMemoryLedger):
        reconciliations = InMemoryReconciliations(world.ledger, ids)
        assert isinstance(world.reconciliations, InMemoryReconciliations)
        reconciliations.runs = world.reconciliations.runs
        world.reconciliations = reconciliations
    else:
        assert isinstance(world.ledger, PostgresLedger)
        world.reconciliations = PostgresReconciliations(world.ledger.engine, ids)
