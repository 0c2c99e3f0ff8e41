"""Asking for an identity's deletion, and watching how far it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from application.ports.departures import OwedTo


@dataclass(frozen=True, slots=True)
class DeletionProgress:
    """How far a deletion is.

    ``deleted_here_at`` is when our copy became a tombstone; ``awaited`` are the consumers that are
    not done with the identity. ``is_done`` once Kratos has no such identity any more;
    ``has_failed`` when Kratos would not delete it, and a person has to decide. ``is_erased`` says
    whether what was recorded of the person is gone, too.
    """

    deleted_here_at: datetime | None
    awaited: Sequence[OwedTo]
    is_done: bool
    has_failed: bool
    is_erased: bool = False

    @property
    def is_held(self) -> bool:
        """Whether nothing goes on before a person has decided about dead letters."""
        return self.has_failed or any(each.dead_letters for each in self.awaited)


class Deletions(Protocol):
    """Every method raises LedgerUnavailable or ConcurrencyConflict."""

    def request(self, identity_id: UUID, *, by: str | None = None, erase: bool = False) -> UUID:
        """Have an identity deleted, here first and in Kratos last; gives the request's event id.

        Goes on by itself from here. Asked for once more, it does no harm.
        """

    def progress(self, request: UUID) -> DeletionProgress:
        """Look how far the deletion of that request is."""
