"""What relay and worker do, in one call."""

from typing import Any
from uuid import UUID

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.pipeline import Batch, deliver
from kratos_sync.testing.ledger import InMemoryLedger


def deliver_to(
    consumer: type[Consumer[Any]], ledger: InMemoryLedger, *event_ids: UUID
) -> tuple[UUID, ...]:
    """Bring the consumer these events, or all that are due, in one batch; give their ids."""
    ids = event_ids or ledger.due(consumer.name)
    if ids:
        # A consumer without subscriptions takes any event.
        events = ledger.subscriptions.events_of(consumer.name) or None
        deliver(Batch(consumer, ids, ledger.unit_of_work(), ledger, events=events))
    return ids


def deliver_everything(ledger: InMemoryLedger) -> None:
    """Deliver what is due, and what becomes due by it."""
    kinds = ledger.subscriptions.consumers.values()
    while due := [kind for kind in kinds if ledger.due(kind.name)]:
        for consumer in due:
            deliver_to(consumer, ledger)
