"""Operations: what people and schedules changed, recorded while they run and kept after that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from kratos_sync.domain.json_values import Json

LONGEST_NAME: Final = 200
"""Of who requested something."""
LONGEST_REASON: Final = 1_000
DEAD_AFTER: Final = timedelta(seconds=30)
"""A running operation that was not noted for so long reads as interrupted."""


class How(StrEnum):
    """From where an operation was requested."""

    CLI = "cli"
    CONSOLE = "console"
    SCHEDULE = "schedule"


class Outcome(StrEnum):
    """How far an operation is; all but ``running`` are final."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


RESUMABLE: Final = frozenset({Outcome.FAILED, Outcome.CANCELLED, Outcome.INTERRUPTED})


class Interrupted(Exception):
    """The process was asked to stop."""


class CannotBeResumed(Exception):
    """The operation is running, completed, was resumed before, does not exist, or has no rest."""


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """What is to be done, by whom and why: none of it changes once it is recorded.

    ``operation`` is a name such as ``replay``. ``subject`` is the identity where one is meant;
    ``scope`` narrows what is meant without naming a person. ``resumes`` is an operation that did
    not complete.
    """

    operation: str
    by: str
    how: How
    reason: str | None = None
    subject: UUID | None = None
    consumer: str | None = None
    scope: Mapping[str, Json] = field(default_factory=dict)
    resumes: int | None = None


class Progress(NamedTuple):
    """How much is done, of how much where that is known, and what came of it, in numbers."""

    done: int = 0
    total: int | None = None
    result: Mapping[str, Json] = {}


@dataclass(frozen=True, slots=True)
class Operation:
    """A recorded operation.

    ``role`` is the database's role. ``seen_at`` is when it was last noted. It is ``interrupted``,
    although without ``ended_at``, where it was not noted for DEAD_AFTER: its process died, or
    cannot reach the ledger.
    """

    id: int
    operation: str
    by: str
    role: str
    how: How
    reason: str | None
    subject: UUID | None
    consumer: str | None
    scope: Mapping[str, Json]
    resumes: int | None
    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None
    outcome: Outcome
    done: int
    total: int | None
    result: Mapping[str, Json]
    cancel_requested_by: str | None
    cancel_requested_at: datetime | None


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Which operations: those that match every field that is set."""

    operation: str | None = None
    by: str | None = None
    since: datetime | None = None
    only_running: bool = False


class Noted(NamedTuple):
    """An operation that goes on; ``cancel_requested_by`` is who asked it to stop, if anybody."""

    cancel_requested_by: str | None


class Operations(Protocol):
    """The record of operations, to which is only added.

    Every method raises LedgerUnavailable, ConcurrencyConflict, or the reason why the schema cannot
    be used.
    """

    def now(self) -> datetime:
        """The time by the database's clock."""

    def begin(self, request: OperationRequest, runner: UUID, total: int | None = None) -> int:
        """Record an operation that begins, and give its number.

        ``runner`` is a secret of whoever carries it out. One that resumes a dead operation ends
        that one as interrupted. Raises CannotBeResumed.
        """

    def note(
        self,
        operation_id: int,
        runner: UUID,
        progress: Progress,
        outcome: Outcome = Outcome.RUNNING,
    ) -> Noted | None:
        """Record how far an operation is, or its outcome, which is final.

        None where it has ended, or another runner began it: then nothing is changed.
        """

    def request_cancel(self, operation_id: int, by: str) -> bool:
        """Ask an operation to stop at its next step; False where it has ended or was asked."""

    def find(self, operation_id: int) -> Operation | None:
        """The operation of that number."""

    def newest(
        self, wanted: OperationFilter, most: int, before: int | None = None
    ) -> Sequence[Operation]:
        """Those that match, the newest first; at most so many, with numbers below ``before``."""

    def remove_older(self, age: timedelta, most: int) -> int:
        """Remove up to so many that are not running and were last noted longer ago; their number.

        None of the last day is removed.
        """
