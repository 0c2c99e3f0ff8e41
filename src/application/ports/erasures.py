"""Erasing what is recorded of a person; the fact that it was erased stays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID


class Erased(NamedTuple):
    """What went: payloads of events, deliveries that have nothing left to say, errors' texts.

    ``held`` events or deliveries were left: a worker had them in hand.
    """

    events: int = 0
    deliveries: int = 0
    texts: int = 0
    held: int = 0

    def plus(self, other: "Erased") -> "Erased":
        """Both together; what is held is what the later one left."""
        return Erased(
            self.events + other.events,
            self.deliveries + other.deliveries,
            self.texts + other.texts,
            other.held,
        )


@dataclass(frozen=True, slots=True)
class Erasure:
    """That somebody's data was erased; ``erased_at`` is None while some of it is left."""

    asked_at: datetime
    erased_at: datetime | None
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Erasable:
    """What there is of a person, by table: rows that an erasure would change or remove.

    ``kratos_identities`` is 1 while the copy is no tombstone, ``attempts`` counts those that
    failed. ``is_known`` says whether there is, or was, anything at all.
    """

    kratos_identities: int
    events: int
    deliveries: int
    attempts: int
    is_known: bool
    erasure: Erasure | None


class Erasures(Protocol):
    """Every method raises LedgerUnavailable or ConcurrencyConflict."""

    def erasable(self, identity_id: UUID) -> Erasable:
        """Count what an erasure would change."""

    def begin(self, identity_id: UUID, by: str, reason: str) -> None:
        """Forget the person, and take note of the erasure, in one commit.

        From here on it ends even if nobody calls ``erase``: a relay does, within a minute.
        """

    def erase(self, people: Sequence[UUID]) -> Iterator[Erased]:
        """Erase what is recorded of people whose erasure has begun, step by step.

        Tells what each step erased. What a worker has in hand is left, and counted.
        """

    def note(self, people: Sequence[UUID], *, is_complete: bool) -> None:
        """Take note of a look at all that there is of these people, and whether nothing is left."""

    def due(self, most: int) -> Sequence[UUID]:
        """Give people whose data is to be looked at again now; another caller gets others.

        What comes after an erasure is found so: within a minute at first, and within as much time
        as has passed since, an hour at most.
        """
