"""Kratos' answers, as a unit of work in memory gets them."""

from collections.abc import Callable, Collection
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from kratos_sync.application.ports.kratos import Answer, KratosAdmin
from kratos_sync.application.sync import IdentityLookup
from kratos_sync.domain.events import (
    DomainEvent,
    KratosIdentityHinted,
)


class InMemoryKratosAnswers:
    """A `KratosAnswers` that keeps what was recorded; `is_recorded` knows of earlier answers,
    and `first_hinted` when the first hint came about somebody of whom nothing is held."""

    def __init__(
        self,
        kratos: KratosAdmin,
        all_ids: Callable[[], Collection[UUID]],
        now: Callable[[], datetime],
        is_recorded: Callable[[KratosIdentityHinted], bool],
        first_hinted: Callable[[UUID], datetime | None],
    ) -> None:
        self._lookup = IdentityLookup(lambda: kratos, all_ids, now)
        self._is_recorded = is_recorded
        self._first_hinted = first_hinted
        self.recorded: dict[UUID, DomainEvent] = {}
        self._collected: set[UUID] = set()

    def is_answered(self, hint: KratosIdentityHinted) -> bool:
        """Ask the ledger."""
        return self._is_recorded(hint)

    def ask(self, identity_id: UUID) -> Answer:
        """Ask as the real one does."""
        return self._lookup.answer(identity_id)

    def record(self, identity_id: UUID, answer: Answer) -> None:
        """Keep the event."""
        if identity_id in self.recorded:
            return
        self.recorded[identity_id] = answer.event(
            uuid7(), identity_id, self._first_hinted(identity_id)
        )

    def collect_events(self) -> list[DomainEvent]:
        """Hand over what was recorded since the last call."""
        raised = [event for event in self.recorded.values() if event.id not in self._collected]
        self._collected.update(event.id for event in raised)
        return raised
