"""Publishing an event to every consumer subscribed to it."""

from dataclasses import dataclass
from typing import Protocol

from domain.events import DomainEvent


class LedgerUnavailable(Exception):
    """The ledger cannot be reached now: nothing was recorded, and the caller may try again."""


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


class EventBus(Protocol):
    """Hands events to the consumers subscribed to them, through the ledger."""

    async def publish(
        self, event: DomainEvent, provenance: Provenance, payload: bytes | None = None
    ) -> bool:
        """Record the event and what is owed to its consumers in one commit, and return after it.

        False if an event with this dedupe key was recorded before; nothing is recorded then.
        Raises LedgerUnavailable. The broker is not asked: it may be away.

        ``payload`` is recorded as it is: JSON in UTF-8 that says what the event's `to_json` says,
        for a caller that has it. Callers that wait at the same time may share the commit; each
        hears of its own event, and one that is cancelled harms none of the others.
        """
