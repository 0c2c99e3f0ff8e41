"""Writing down that a delivery failed."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

RETRY_LATER: Final = "application.consumer.RetryLater"
"""The type of error of an attempt whose consumer asked for another one later."""
WORKER_DIED: Final = "WorkerDied"
SUSPECT_ERRORS: Final = ("TimeLimitExceeded", WORKER_DIED)
"""Types of errors after which a delivery runs alone: it may harm the worker again."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that failed; ``retry_after`` is None when it was the last: a dead letter.

    ``error`` is told whole, with its traceback; ``error_type`` and ``error_shape`` are what errors
    of one kind have in common. One that ``is_postponed`` is not counted: its consumer asked for it.
    """

    event_id: UUID
    consumer: str
    number: int
    started_at: datetime
    duration: timedelta
    error: str
    retry_after: timedelta | None
    error_type: str | None = None
    error_shape: str | None = None
    is_postponed: bool = False

    @property
    def outcome(self) -> str:
        """``failed``, ``gave_up`` or ``postponed``, as the ledger logs it."""
        if self.is_postponed:
            return "postponed"
        return "gave_up" if self.retry_after is None else "failed"


class Failures(Protocol):
    """The ledger's account of what went wrong, kept in transactions of its own."""

    def record(self, attempt: FailedAttempt) -> None:
        """Log the attempt and make the delivery due again after its backoff, or a dead letter.

        Nothing happens if the delivery was settled meanwhile. Raises LedgerUnavailable.
        """
