"""Deleting an identity, here and in Kratos, and erasing what is recorded of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID


class AwaitedConsumer(NamedTuple):
    """A consumer with pending deliveries about an identity, some of them dead letters."""

    consumer: str
    deliveries: int
    dead_letters: int


class DeletionFinalizer(Protocol):
    """The last steps of a deletion, in the transaction that completes its request."""

    def awaited(self, identity_id: UUID, besides: str) -> Sequence[AwaitedConsumer]:
        """Give the consumers, but for one, with deliveries or dead letters about the identity."""

    def delete_from_kratos(self, identity_id: UUID) -> bool:
        """Delete it in Kratos; False if there was none. Raises KratosError."""

    def request_erasure(self, identity_id: UUID, by: str, reason: str) -> None:
        """Have a relay erase what is recorded of the identity, soon after this commits."""


@dataclass(frozen=True, slots=True)
class DeletionProgress:
    """How far a deletion is.

    ``deleted_here_at`` is when our copy became a tombstone; ``awaited`` are the consumers that are
    not done with the identity. ``is_done`` once Kratos has no such identity any more;
    ``has_failed`` when Kratos refused to delete it, and a person has to decide. ``is_erased`` says
    whether what was recorded of the identity is erased, too.
    """

    deleted_here_at: datetime | None
    awaited: Sequence[AwaitedConsumer]
    is_done: bool
    has_failed: bool
    is_erased: bool = False

    @property
    def is_held(self) -> bool:
        """Whether it stands still until a person has decided about dead letters."""
        return self.has_failed or any(each.dead_letters for each in self.awaited)


class Deletions(Protocol):
    """Every method raises LedgerUnavailable or ConcurrencyConflict."""

    def request(self, identity_id: UUID, *, by: str | None = None, erase: bool = False) -> UUID:
        """Request a deletion, here first and in Kratos last; give the request's event id.

        Consumers do the rest. Requesting it once more does no harm.
        """

    def progress(self, request: UUID) -> DeletionProgress:
        """Give how far the deletion of that request is."""


class Erased(NamedTuple):
    """What was erased: payloads of events, deliveries without purpose, and texts of errors.

    ``held`` events or deliveries were left, as a worker is processing them.
    """

    events: int = 0
    deliveries: int = 0
    texts: int = 0
    held: int = 0

    def plus(self, other: "Erased") -> "Erased":
        """Add both; ``held`` is what the later one left."""
        return Erased(
            self.events + other.events,
            self.deliveries + other.deliveries,
            self.texts + other.texts,
            other.held,
        )


@dataclass(frozen=True, slots=True)
class Erasure:
    """The record of an erasure; ``erased_at`` is None while some of it is left to do."""

    asked_at: datetime
    erased_at: datetime | None
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Erasable:
    """The rows, by table, that an erasure would change or remove.

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
        """Make the copy an erased tombstone, and record the erasure request, in one commit.

        From here on a relay completes the erasure, even if nobody calls ``erase``.
        """

    def erase(self, ids: Sequence[UUID]) -> Iterator[Erased]:
        """Erase what is recorded of identities whose erasure has begun, and give each step.

        What a worker is processing is left, and counted.
        """

    def note(self, ids: Sequence[UUID], *, is_complete: bool) -> None:
        """Record that these were gone through, and whether nothing is left to erase."""

    def due(self, most: int) -> Sequence[UUID]:
        """Claim identities that are to be gone through again now; another caller gets others.

        So what is recorded after an erasure is erased too: within a minute at first, later within
        as much time as has passed since, an hour at most.
        """
