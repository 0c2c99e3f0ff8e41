"""What people lived through, and what went wrong, for the tests of the console."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text
from uuid_utils.compat import uuid7

from kratos_sync.application.ports.dead_letters import FailedAttempt
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.reconcile import DeletesRefused
from kratos_sync.domain.events import KratosIdentityUpdated
from kratos_sync.domain.identity import Identity
from kratos_sync.infrastructure.ledger.recording import record_many
from kratos_sync.testing.kratos import Document
from tests.domain.people import ADA, address, document, written
from tests.kratos.persons import many
from tests.suites.ledgers import PostgresLedger
from tests.suites.reconciling import World

SYNC = "SyncKratosIdentity"
OLD, NEW = "ada@example.org", "ada.king@example.org"
ERROR, SHAPE = "ValueError: no plan for 'ada@example.org'", "no plan for …"
DEAD, LOST = 3, 11
HOOK = "settings.after.profile"

HOOKS = text("""
    INSERT INTO kratos_sync.hooks_heard (label, first_at, last_at, calls)
    VALUES (:silent, now() - interval '60 d', now() - interval '30 d', 5000),
           (:called, now() - interval '60 d', now(), 5000)
""")

RENAMED = text("""
    INSERT INTO kratos_sync.deliveries
           (event_id, subject, consumer, attempts, failed_at, last_error, error_type)
    SELECT id, subject, 'SyncIdentity', 12, now(), 'OSError: gone', 'OSError'
    FROM kratos_sync.events WHERE name = 'kratos_identity.updated'
""")


def register(world: World) -> UUID:
    """Ada registered ten minutes ago, and changed her name; Kratos has another address by now."""
    for minute, first in enumerate(["Ada", "Augusta"]):
        traits = {"email": OLD, "name": {"first": first, "last": "Lovelace"}}
        receive(world, of_ada(world, minute, traits=traits))
        world.consume()
    addresses = [address(NEW, status="sent")]
    world.town.put(of_ada(world, 9, traits={"email": NEW}, verifiable_addresses=addresses))
    return ADA


def live(world: World) -> UUID:
    """The same, and deliveries about her failed for good; a hook has been silent for a month."""
    register(world)
    for minute in range(2, 2 + DEAD):
        receive(world, of_ada(world, minute))
    fail(world)
    call_hooks(world, silent="login", called=HOOK)
    return ADA


def of_ada(world: World, minute: int, **changes: Any) -> Document:
    """What Kratos said of her, so many minutes after she registered."""
    registered = world.now() - timedelta(minutes=10)
    at = registered + timedelta(minutes=minute)
    return document(
        None, **{"created_at": written(registered), "updated_at": written(at), **changes}
    )


def receive(world: World, said: Document, hook: str = HOOK) -> None:
    """Record a webhook that says this, without an event loop: the browser has one."""
    event = KratosIdentityUpdated(uuid7(), world.now(), Identity.from_kratos(said))
    with engine_of(world).begin() as connection:
        record_many(connection, [(event, Provenance("webhook", hook=hook))])


def fail(
    world: World, error: str = ERROR, shape: str = SHAPE, exception: str = "ValueError"
) -> None:
    """Make a dead letter of each delivery that is pending."""
    for (consumer, event_id), delivery in world.ledger.deliveries.items():
        if not delivery.is_dead:
            world.ledger.record(
                FailedAttempt(
                    event_id,
                    consumer,
                    delivery.attempts + 1,
                    world.now(),
                    timedelta(milliseconds=8),
                    error,
                    None,
                    exception,
                    shape,
                )
            )


def engine_of(world: World) -> Engine:
    """Connections to the console's database."""
    assert isinstance(world.ledger, PostgresLedger)
    return world.ledger.engine


def call_hooks(world: World, *, silent: str, called: str) -> None:
    """Have two hooks, one of which does not call any more."""
    with engine_of(world).begin() as connection:
        connection.execute(HOOKS, {"silent": silent, "called": called})


def rename(world: World) -> None:
    """Leave dead letters of a consumer that has another name by now, about what Ada did."""
    register(world)
    with engine_of(world).begin() as connection:
        connection.execute(RENAMED)


def lose(world: World) -> list[UUID]:
    """Let Kratos list LOST people no more, and a reconciliation refuse to delete them here."""
    people = many(LOST + 1)
    world.copy(*people)
    lost = [UUID(each["id"]) for each in people[1:]]
    for each in lost:
        world.town.remove(each)
    try:
        world.reconcile()
    except DeletesRefused:
        return lost
    raise AssertionError("the reconciliation deleted them")
