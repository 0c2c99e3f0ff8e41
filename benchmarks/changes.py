"""Changes that an application makes to its tables of consumers, before a command starts."""

from collections.abc import MutableMapping
from typing import Any, ClassVar, cast

from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.subscriptions import CONSUMERS, SUBSCRIPTIONS
from kratos_sync.domain.events import KratosIdentityUpdated

POISON_ONE_IN = 100


class NoticeUpdates(Consumer[KratosIdentityUpdated]):
    """Read every event and write nothing: what it costs is its being delivered."""

    name: ClassVar[str] = "NoticeUpdates"

    def __init__(self) -> None:
        self.noticed = 0

    def consume(self, event: KratosIdentityUpdated) -> None:
        """Notice one."""
        self.noticed += event.identity is not None


class SyncAllButPoison(SyncKratosIdentity):
    """SyncKratosIdentity, but that it fails, its work done, on the events that are poison."""

    def consume(self, event: KratosIdentityUpdated) -> None:
        """Sync. Raises ValueError for poison."""
        super().consume(event)
        if event.id.int % POISON_ONE_IN == 0:
            raise ValueError("this event is poison")


def set_batch_size(size: int) -> None:
    """Let at most so many events of each consumer share a transaction."""
    for consumer in CONSUMERS.values():
        consumer.batch_size = size


def notice_updates_too() -> None:
    """Add a second consumer to every webhook's event."""
    _subscribe(SyncKratosIdentity, NoticeUpdates)


def fail_on_poison() -> None:
    """Have SyncKratosIdentity fail on the events that are poison."""
    _subscribe(SyncAllButPoison)


def _subscribe(*consumers: type[Consumer[Any]]) -> None:
    cast("MutableMapping[Any, Any]", SUBSCRIPTIONS)[KratosIdentityUpdated] = consumers
    named = {consumer.name: consumer for consumer in consumers}
    cast("MutableMapping[Any, Any]", CONSUMERS).update(named)
