"""Trying a consumer on a recorded event, with everything rolled back."""

from collections.abc import Collection
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import DomainEvent


class NoTrial(Exception):
    """There is no such event, or it was erased, or the consumer does not receive it."""


class Writes(NamedTuple):
    """How many rows of a table were written."""

    table: str
    inserted: int
    updated: int
    deleted: int


class Trial(NamedTuple):
    """What a consumer would write and raise; with an ``error``, its traceback, it would fail."""

    event: DomainEvent
    writes: list[Writes]
    raised: list[DomainEvent]
    error: str | None
    seconds: float


class Trials(Protocol):
    """Tries consumers, one event at a time."""

    def run(self, consumer: type[Consumer[Any]], event_id: UUID, events: Collection[str]) -> Trial:
        """Consume the event, one of ``events`` by its name, write, look, and roll back.

        No other table than those of the consumer's ports is written: attempts and deliveries stay.
        Raises NoTrial or LedgerUnavailable; what the consumer raises is in the trial.
        """
