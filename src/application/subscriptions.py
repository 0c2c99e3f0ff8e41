"""Which consumers are subscribed to which events: to add a consumer, add it here."""

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
    """The consumers that are subscribed to a kind of event; there may be none."""
    return SUBSCRIPTIONS.get(kind, ())


def takes(consumer: str, event: str) -> bool:
    """Whether this release knows the event and may pass it to the consumer, both by their names.

    A consumer without subscriptions takes any event, others only those that they subscribe to.
    """
    subscribed = {
        kind.name
        for kind, consumers in SUBSCRIPTIONS.items()
        if consumer in {each.name for each in consumers}
    }
    return event in EVENTS and (not subscribed or event in subscribed)
