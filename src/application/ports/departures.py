"""An identity on its way out: who here is not done with it, and what comes last."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID


class OwedTo(NamedTuple):
    """What one consumer is owed about an identity: deliveries, some of them dead."""

    consumer: str
    deliveries: int
    dead_letters: int


class Departures(Protocol):
    """The last steps of a deletion, in the transaction that settles its request."""

    def awaited(self, identity_id: UUID, besides: str) -> Sequence[OwedTo]:
        """Give who is owed anything about an identity, dead letters too, besides one consumer."""

    def delete_from_kratos(self, identity_id: UUID) -> bool:
        """Remove it from Kratos; False if it was gone. Raises KratosError."""

    def have_erased(self, identity_id: UUID, by: str, reason: str) -> None:
        """Have what is recorded of a forgotten person erased, soon after this commits."""
