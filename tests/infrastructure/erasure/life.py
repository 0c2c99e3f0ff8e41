"""A whole life in the ledger, and a look for what is left of it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, text
from uuid_utils.compat import uuid7

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.count_registrations import CountRegistrations
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.identity import Identity
from kratos_sync.infrastructure.postgres.engine import driver_of
from tests.kratos.persons import person
from tests.suites.ledgers import PostgresLedger
from tests.suites.occurrences import subscribed

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Nosy(Consumer[KratosIdentityUpdated]):
    """Fails, and says of whom."""

    name = "Nosy"
    max_attempts = 2

    def consume(self, event: KratosIdentityUpdated) -> None:
        """Quote everything."""
        raise RuntimeError(f"cannot greet {event.identity.traits} of {event.identity.external_id}")


class Life:
    """One person, by whom every table knows something."""

    def __init__(self, ledger: PostgresLedger, identity_id: UUID | None = None) -> None:
        self.ledger = ledger
        self.id = identity_id or uuid4()
        self.sign = uuid4().hex[:10]

    def document(self, **fields: Any) -> dict[str, Any]:
        address = f"{self.sign}.mail@example.org"
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        known = person(
            self.id,
            traits={"email": address, f"{self.sign}.key": f"{self.sign}.trait"},
            external_id=f"{self.sign}.external",
            metadata_public={"note": f"{self.sign}.public"},
            metadata_admin={"note": f"{self.sign}.admin"},
            mood=f"{self.sign}.mood",
            state=f"{self.sign}.state",
            created_at=now,
        )
        for each in (*known["verifiable_addresses"], *known["recovery_addresses"]):
            each["value"] = address
        return {**known, **fields}

    def receive(self, **fields: Any) -> KratosIdentityUpdated:
        """Kratos calls, and the call is recorded."""
        identity = Identity.from_kratos(self.document(**fields))
        event = KratosIdentityUpdated(uuid7(), datetime.now(UTC), identity)
        provenance = Provenance("webhook", f"webhook:{self.sign}.{event.id}", TRACE)
        assert self.ledger.publish(event, provenance)
        return event

    def live(self) -> None:
        """Register, verify, change; a consumer gives up on one call, and fails at the next."""
        with consumed_by(self.ledger, Nosy):
            first = self.receive()
            self.consume(SyncKratosIdentity)
            for _ in range(Nosy.max_attempts):
                self.ledger.query("UPDATE kratos_sync.deliveries SET due_at = now()")
                self.consume(Nosy)
            verified = self.document()["verifiable_addresses"][0] | {
                "verified": True,
                "status": "completed",
                "verified_at": first.date_occurred.isoformat(),
            }
            self.receive(
                verifiable_addresses=[verified],
                traits={"email": f"{self.sign}.other"},
                updated_at=datetime.now(UTC).isoformat(),
            )
            self.consume(SyncKratosIdentity)
            self.consume(Nosy)
            self.ledger.query("UPDATE kratos_sync.deliveries SET due_at = now()")
        self.consume(CountRegistrations)
        self.receive(updated_at=datetime.now(UTC).isoformat())

    def consume(self, *consumers: type[Consumer[Any]]) -> None:
        """Let consumers consume what is due to them."""
        for consumer in consumers:
            due = self.ledger.query(
                "SELECT event_id FROM kratos_sync.deliveries WHERE consumer = :consumer"
                " AND failed_at IS NULL AND due_at <= now() ORDER BY event_id",
                consumer=consumer.name,
            )
            if ids := [row["event_id"] for row in due]:
                deliver(
                    Batch(consumer, ids, self.ledger.unit_of_work(*consumers), self.ledger.failures)
                )

    def consume_everything(self) -> None:
        """Let everybody."""
        self.consume(*self.ledger.subscriptions.consumers.values())

    def left(self) -> list[str]:
        """The tables in which something of the person is to be read."""
        return traces(self.ledger.engine, [self.sign, TRACE])


def consumed_by(
    ledger: PostgresLedger, *consumers: type[Consumer[Any]]
) -> AbstractContextManager[None]:
    """Subscribe these to what Kratos says, beside our own consumers."""
    return subscribed(ledger, KratosIdentityUpdated, SyncKratosIdentity, *consumers)


def traces(engine: Engine, signs: Sequence[str]) -> list[str]:
    """The tables of the schema that have one of these texts in any column of any row."""
    tables = text(
        "SELECT relname FROM pg_class WHERE relnamespace = 'kratos_sync'::regnamespace"
        " AND relkind IN ('r', 'p', 'm', 'v') ORDER BY 1"
    )
    found = []
    with engine.begin() as connection:
        for (table,) in connection.execute(tables).all():
            with (
                driver_of(connection)
                .cursor()
                .copy(f'COPY (SELECT * FROM kratos_sync."{table}") TO STDOUT'.encode()) as copied
            ):
                copy = b"".join(bytes(part) for part in copied).decode()
            if any(sign in copy for sign in signs):
                found.append(table)
    return found
