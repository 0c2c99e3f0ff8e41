"""Commands that work in steps: what ends one before it is done, in one sentence."""

from dataclasses import dataclass

from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.worker.shutdown import ShutdownRequested


@dataclass(slots=True)
class Steps:
    """What was done so far, and why it ended early, if it did.

    As a context, it notes and swallows what ends the steps: a signal (`ShutdownSignals`),
    conflicts, or a database that is unavailable.
    """

    done: int = 0
    ended_early: str | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        why = None if error is None else _why(error)
        self.ended_early = why or self.ended_early
        return why is not None


def _why(error: BaseException) -> str | None:
    from kratos_sync.infrastructure.postgres.connection_failures import (
        DATABASE_ERRORS,
        why_unavailable,
    )

    match error:
        case ShutdownRequested():
            return "Interrupted"
        case ConcurrencyConflict():
            return "PostgreSQL was too busy"
    return why_unavailable(error) if isinstance(error, DATABASE_ERRORS) else None
