"""Writing down that a delivery failed."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that failed; ``retry_after`` is None when it was the last: a dead letter."""

    event_id: UUID
    consumer: str
    number: int
    started_at: datetime
    duration: timedelta
    error: str
    retry_after: timedelta | None


class Failures(Protocol):
    """The ledger's account of what went wrong, kept in transactions of its own."""

    def record(self, attempt: FailedAttempt) -> None:
        """Log the attempt and make the delivery due again after its backoff, or a dead letter.

        Nothing happens if the delivery was settled meanwhile. Raises LedgerUnavailable.
        """
