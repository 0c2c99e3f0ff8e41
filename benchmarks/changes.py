"""Changes to the consumers, made before a command starts."""

import os
from typing import ClassVar

from kratos_sync.application.application import Application, Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.domain.events import KratosIdentityUpdated

FAILING_ONE_IN = 100


class NoticeUpdates(Consumer[KratosIdentityUpdated]):
    """Read every event and write nothing: what it costs is its being delivered."""

    name: ClassVar[str] = "NoticeUpdates"

    def __init__(self) -> None:
        self.noticed = 0

    def consume(self, event: KratosIdentityUpdated) -> None:
        """Notice one."""
        self.noticed += event.identity is not None


two_consumers = Application(subscriptions={KratosIdentityUpdated: [NoticeUpdates]})


def set_batch_size(size: int) -> None:
    """Let at most so many events of each consumer share a transaction."""
    for consumer in Subscriptions(SUBSCRIPTIONS).consumers.values():
        consumer.batch_size = size


def sync_one_at_a_time() -> None:
    """Give SyncKratosIdentity the policy of a consumer with effects outside the database."""
    SyncKratosIdentity.batch_size = 1


def notice_updates_too() -> None:
    """Add a second consumer to every webhook's event."""
    os.environ["KRATOS_SYNC_APP"] = f"{__name__}:two_consumers"


def notice_updates_in_order() -> None:
    """Add the second consumer, to which the events about one identity come one after another."""
    NoticeUpdates.ordered = True
    notice_updates_too()


def fail_on_some() -> None:
    """Have SyncKratosIdentity fail, its work done, on the events that are to fail."""
    consume = SyncKratosIdentity.consume

    def consume_all_but_some(self: SyncKratosIdentity, event: KratosIdentityUpdated) -> None:
        consume(self, event)
        if event.id.int % FAILING_ONE_IN == 0:
            raise ValueError("this event is to fail")

    SyncKratosIdentity.consume = consume_all_but_some  # type: ignore[method-assign]  # the change
