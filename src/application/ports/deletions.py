"""Asking for an identity's deletion, and watching how far it is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID


class OwedTo(NamedTuple):
    """What one consumer is owed about an identity: deliveries, some of them dead."""

    consumer: str
    deliveries: int
    dead_letters: int


class DeletionFinalizer(Protocol):
    """The last steps of a deletion, in the transaction that settles its request."""

    def awaited(self, identity_id: UUID, besides: str) -> Sequence[OwedTo]:
        """Give who is owed anything about an identity, dead letters too, besides one consumer."""

    def delete_from_kratos(self, identity_id: UUID) -> bool:
        """Remove it from Kratos; False if it was gone. Raises KratosError."""

    def have_erased(self, identity_id: UUID, by: str, reason: str) -> None:
        """Have what is recorded of a forgotten person erased, soon after this commits."""


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
