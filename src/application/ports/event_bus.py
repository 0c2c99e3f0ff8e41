"""Publishing an event to every consumer subscribed to it."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol, TypeAlias
from uuid import UUID

from kratos_sync.domain.events import DomainEvent


class LedgerUnavailable(Exception):
    """The ledger cannot be reached now: nothing was recorded, and the caller may retry.

    The message says why and quotes no other error, so that it may be logged.
    """


ANSWER_SOURCES: Final = frozenset({"FetchKratosIdentity", "reconcile", "sync"})
"""The sources of events that this service itself fetched from the Admin API: they are exact."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an event came from.

    ``source`` is ``webhook``, a command, or the consumer that raised it. Of events with the same
    ``dedupe_key`` only the first is recorded. ``traceparent`` is a W3C Trace Context header.
    ``hook`` is the label of Kratos' hook that called.
    """

    source: str
    dedupe_key: str | None = None
    traceparent: str | None = None
    hook: str | None = None


class UnreadEvent(NamedTuple):
    """An event whose payload, JSON in UTF-8, was checked and is recorded as it came.

    ``subject`` is the id of the identity that it is about.
    """

    kind: type[DomainEvent]
    id: UUID
    date_occurred: datetime
    subject: UUID
    payload: bytes

    def read(self) -> DomainEvent:
        """Decode the event."""
        return self.kind.from_json(self.id, self.date_occurred, json.loads(self.payload))


Publishable: TypeAlias = DomainEvent | UnreadEvent


class EventBus(Protocol):
    """Passes events to the consumers subscribed to them, through the ledger."""

    async def publish(self, event: Publishable, provenance: Provenance) -> bool:
        """Record the event and a delivery for each consumer, and return after the commit.

        False if an event with this dedupe key was recorded before: then nothing is recorded.
        Raises LedgerUnavailable. The broker is not involved and may be away.

        Callers that wait at the same time may share a commit. Cancelling one affects no other.
        """
