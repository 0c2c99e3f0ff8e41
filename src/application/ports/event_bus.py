"""Publishing an event to every consumer subscribed to it."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol, TypeAlias
from uuid import UUID

from kratos_sync.domain.events import DomainEvent


class LedgerUnavailable(Exception):
    """The ledger cannot be reached now: nothing was recorded, and the caller may try again.

    The message says why, in words of ours alone: it may be logged.
    """


ANSWER_SOURCES: Final = frozenset({"FetchKratosIdentity", "reconcile", "sync"})
"""The sources of what we ourselves fetched from Kratos' Admin API: it is exact."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an event came from.

    ``source`` names the way it came (``webhook``, or the consumer that raised it). Of the events
    with one ``dedupe_key`` only the first is recorded. ``traceparent`` is a W3C Trace Context
    header, or None.
    """

    source: str
    dedupe_key: str | None = None
    traceparent: str | None = None


class UnreadEvent(NamedTuple):
    """An event as the text of its payload, which was seen to be one and is recorded as it came.

    ``payload`` is JSON in UTF-8; ``subject`` is the id of the identity that it is about.
    """

    kind: type[DomainEvent]
    id: UUID
    date_occurred: datetime
    subject: UUID
    payload: bytes

    def read(self) -> DomainEvent:
        """Give the event that this is."""
        return self.kind.from_json(self.id, self.date_occurred, json.loads(self.payload))


Publishable: TypeAlias = DomainEvent | UnreadEvent


class EventBus(Protocol):
    """Passes events to the consumers subscribed to them, through the ledger."""

    async def publish(self, event: Publishable, provenance: Provenance) -> bool:
        """Record the event and what is owed to its consumers in one commit, and return after it.

        False if an event with this dedupe key was recorded before; nothing is recorded then.
        Raises LedgerUnavailable. The broker is not asked: it may be away.

        Callers that wait at the same time may share the commit; each hears of its own event, and
        one that is cancelled harms none of the others.
        """
