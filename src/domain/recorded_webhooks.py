"""The webhooks about an identity that are on record."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from kratos_sync.domain.identity import Identity


class ReceivedWebhook(NamedTuple):
    """What a webhook said, and when it was recorded, by the ledger's clock."""

    identity: Identity
    recorded_at: datetime


class RecordedWebhooks(Protocol):
    """Every webhook on record, whether it was consumed or not."""

    def now(self) -> datetime:
        """The time by the clock that they are recorded by."""
        ...

    def after(self, identity_id: UUID, moment: datetime) -> Iterable[ReceivedWebhook]:
        """Those about an identity that were recorded after that moment, to be gone through once.

        Call it once the identity's own copy is locked: `KratosIdentities.find` does that.
        """
        ...
