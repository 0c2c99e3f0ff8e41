"""An event bus that remembers what was published."""

from uuid import UUID

from kratos_sync.application.ports.event_bus import (
    LedgerUnavailable,
    Provenance,
    Publishable,
    UnreadEvent,
)
from kratos_sync.domain.events import DomainEvent


class RecordingEventBus:
    """An `EventBus` that records in memory, each event and each dedupe key once."""

    def __init__(self) -> None:
        self.published: list[tuple[DomainEvent, Provenance]] = []
        self.payloads: list[bytes | None] = []
        self.attempts = 0
        self._failures_left = 0.0
        self._seen: set[str | UUID] = set()

    def be_unavailable(self, times: float = float("inf")) -> None:
        """Refuse the next so many events, or every one."""
        self._failures_left = times

    @property
    def events(self) -> list[DomainEvent]:
        """What was recorded, in order."""
        return [event for event, _ in self.published]

    async def publish(self, event: Publishable, provenance: Provenance) -> bool:
        """Record the event; False if it or its dedupe key was recorded before."""
        self.attempts += 1
        if self._failures_left > 0:
            self._failures_left -= 1
            raise LedgerUnavailable("the test made this bus unavailable")
        keys = {event.id, provenance.dedupe_key or event.id}
        if keys & self._seen:
            return False
        self._seen |= keys
        is_unread = isinstance(event, UnreadEvent)
        self.published.append((event.read() if is_unread else event, provenance))
        self.payloads.append(event.payload if is_unread else None)
        return True
