"""Events about Ada, Grace and the others, and a way to subscribe to them for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.events import (
    EVENTS,
    DomainEvent,
    KratosIdentityGone,
    KratosIdentityHinted,
    KratosIdentityUpdated,
)
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import Json
from tests.domain.people import ADA, GRACE, cause, document, minutes

if TYPE_CHECKING:
    from kratos_sync.testing.ledger import InMemoryLedger
    from tests.suites.ledgers import PostgresLedger

MARY = uuid5(ADA, "Mary Somerville")
HEDY = uuid5(ADA, "Hedy Lamarr")
PEOPLE = (ADA, GRACE, MARY, HEDY)
WEBHOOK = Provenance("webhook")


def person(number: int) -> UUID:
    """One of a population."""
    return uuid5(ADA, str(number))


def snapshot_of(who: UUID, updated: float = 0, **changes: Json) -> Identity:
    """What Kratos says of a person, in a webhook, so many minutes past noon."""
    return Identity.from_kratos(document(updated, **{"id": str(who), **changes}))


def updated(
    number: int, who: UUID = ADA, *, at: datetime | None = None, minute: float = 0, **changes: Json
) -> KratosIdentityUpdated:
    """The event of that number: Kratos has called about a person, by default just registered."""
    return KratosIdentityUpdated(
        cause(number), at or minutes(1), snapshot_of(who, minute, **changes)
    )


def gone(number: int, who: UUID = ADA, *, at: datetime | None = None) -> KratosIdentityGone:
    """The event of that number: Kratos no longer has a person."""
    return KratosIdentityGone(cause(number), at or minutes(number), who)


def hinted(number: int, who: UUID = ADA, *, at: datetime | None = None) -> KratosIdentityHinted:
    """The event of that number: somebody says that a person has changed."""
    return KratosIdentityHinted(cause(number), at or minutes(number), who)


@contextmanager
def subscribed(
    ledger: "InMemoryLedger | PostgresLedger",
    event: type[DomainEvent],
    *consumers: type[Consumer[Any]],
) -> Iterator[None]:
    """Have these consumers, and no others, subscribed to the event."""
    before = ledger.subscriptions
    table = {
        EVENTS[name]: [before.consumers[each] for each in before.consumers_of(name)]
        for name in EVENTS
    }
    ledger.subscriptions = Subscriptions({**table, event: consumers})
    try:
        yield
    finally:
        ledger.subscriptions = before
