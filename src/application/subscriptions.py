"""Which consumers hear of which event: to add a consumer, add it here."""

from collections.abc import Mapping
from typing import Any

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.count_registrations import CountRegistrations
from kratos_sync.application.consumers.delete_from_kratos import DeleteFromKratos
from kratos_sync.application.consumers.delete_kratos_identity import DeleteKratosIdentity
from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.consumers.forget_identity import ForgetIdentity
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.domain.events import (
    EVENTS,
    DomainEvent,
    IdentityDeletionRequested,
    IdentityRegistered,
    KratosIdentityGone,
    KratosIdentityHinted,
    KratosIdentityUpdated,
)

SUBSCRIPTIONS: Mapping[type[DomainEvent], tuple[type[Consumer[Any]], ...]] = {
    KratosIdentityUpdated: (SyncKratosIdentity,),
    KratosIdentityGone: (DeleteKratosIdentity,),
    KratosIdentityHinted: (FetchKratosIdentity,),
    IdentityRegistered: (CountRegistrations,),
    IdentityDeletionRequested: (ForgetIdentity, DeleteFromKratos),
}

CONSUMERS: Mapping[str, type[Consumer[Any]]] = {
    consumer.name: consumer for consumers in SUBSCRIPTIONS.values() for consumer in consumers
}


def consumers_of(kind: type[DomainEvent]) -> tuple[type[Consumer[Any]], ...]:
    """Give the consumers subscribed to events of that kind; none is an answer."""
    return SUBSCRIPTIONS.get(kind, ())


def takes(consumer: str, event: str) -> bool:
    """Whether an event of that name may be given to the consumer of that name.

    This release must know the event; and a consumer that is subscribed to others is given no more
    than those.
    """
    subscribed = {
        kind.name
        for kind, consumers in SUBSCRIPTIONS.items()
        if consumer in {each.name for each in consumers}
    }
    return event in EVENTS and (not subscribed or event in subscribed)
