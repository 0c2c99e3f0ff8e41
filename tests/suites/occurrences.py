"""Events about Ada, Grace and the others, and a way to subscribe to them for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid5

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.count_registrations import CountRegistrations
from kratos_sync.application.consumers.delete_from_kratos import DeleteFromKratos
from kratos_sync.application.consumers.delete_kratos_identity import DeleteKratosIdentity
from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.consumers.forget_identity import ForgetIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.subscriptions import CONSUMERS, SUBSCRIPTIONS
from kratos_sync.domain.events import (
    DomainEvent,
    IdentityDeletionRequested,
    IdentityRegistered,
    KratosIdentityGone,
    KratosIdentityHinted,
    KratosIdentityUpdated,
)
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import Json
from tests.domain.people import ADA, GRACE, cause, document, minutes

MARY = uuid5(ADA, "Mary Somerville")
HEDY = uuid5(ADA, "Hedy Lamarr")
PEOPLE = (ADA, GRACE, MARY, HEDY)
WEBHOOK = Provenance("webhook")

OURS = {
    KratosIdentityUpdated: (SyncKratosIdentity,),
    KratosIdentityGone: (DeleteKratosIdentity,),
    KratosIdentityHinted: (FetchKratosIdentity,),
    IdentityRegistered: (CountRegistrations,),
    IdentityDeletionRequested: (ForgetIdentity, DeleteFromKratos),
}
"""The subscriptions that come with the project, whatever others an application adds."""


def person(number: int) -> UUID:
    """One of a population."""
    return uuid5(ADA, str(number))


def told_of(who: UUID, updated: float = 0, **changes: Json) -> Identity:
    """What Kratos says of a person, in a webhook, so many minutes past noon."""
    return Identity.from_kratos(document(updated, **{"id": str(who), **changes}))


def updated(
    number: int, who: UUID = ADA, *, at: datetime | None = None, minute: float = 0, **changes: Json
) -> KratosIdentityUpdated:
    """The event of that number: Kratos has told of a person, by default just registered."""
    return KratosIdentityUpdated(cause(number), at or minutes(1), told_of(who, minute, **changes))


def gone(number: int, who: UUID = ADA, *, at: datetime | None = None) -> KratosIdentityGone:
    """The event of that number: Kratos no longer has a person."""
    return KratosIdentityGone(cause(number), at or minutes(number), who)


def hinted(number: int, who: UUID = ADA, *, at: datetime | None = None) -> KratosIdentityHinted:
    """The event of that number: somebody says that a person has changed."""
    return KratosIdentityHinted(cause(number), at or minutes(number), who)


@contextmanager
def only_ours() -> Iterator[None]:
    """Let nobody hear of anything but the consumers that come with the project."""
    by_name = {consumer.name: consumer for consumers in OURS.values() for consumer in consumers}
    with patch.dict(SUBSCRIPTIONS, OURS, clear=True), patch.dict(CONSUMERS, by_name, clear=True):
        yield


@contextmanager
def subscribed(event: type[DomainEvent], *consumers: type[Consumer[Any]]) -> Iterator[None]:
    """Let these consumers, and no others, hear of the event."""
    by_name = {consumer.name: consumer for consumer in consumers}
    with (
        patch.dict(SUBSCRIPTIONS, {event: consumers}),
        patch.dict(CONSUMERS, by_name),
    ):
        yield
