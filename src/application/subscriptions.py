"""Which consumers hear of which event: to add a consumer, add it here."""

from collections.abc import Mapping
from typing import Any

from application.consumer import Consumer
from application.consumers.count_registrations import CountRegistrations
from application.consumers.delete_kratos_identity import DeleteKratosIdentity
from application.consumers.sync_kratos_identity import SyncKratosIdentity
from domain.events import (
    DomainEvent,
    IdentityRegistered,
    KratosIdentityGone,
    KratosIdentityUpdated,
)

SUBSCRIPTIONS: Mapping[type[DomainEvent], tuple[type[Consumer[Any]], ...]] = {
    KratosIdentityUpdated: (SyncKratosIdentity,),
    KratosIdentityGone: (DeleteKratosIdentity,),
    IdentityRegistered: (CountRegistrations,),
}

CONSUMERS: Mapping[str, type[Consumer[Any]]] = {
    consumer.name: consumer for consumers in SUBSCRIPTIONS.values() for consumer in consumers
}


def consumers_of(kind: type[DomainEvent]) -> tuple[type[Consumer[Any]], ...]:
    """Give the consumers subscribed to events of that kind; none is an answer."""
    return SUBSCRIPTIONS.get(kind, ())
