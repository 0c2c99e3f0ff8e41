"""The identities that we hold, in memory."""

from collections.abc import Iterable, Iterator
from uuid import UUID

from domain.kratos_identity import KratosIdentity


class InMemoryKratosIdentities:
    """A `KratosIdentities` that keeps what it is given, and lets a test look at all of it."""

    def __init__(self, identities: Iterable[KratosIdentity] = ()) -> None:
        self._identities = {identity.id: identity for identity in identities}

    def find(self, identity_id: UUID) -> KratosIdentity | None:
        """The identity of that id, or None when we never heard of it."""
        return self._identities.get(identity_id)

    def add(self, identity: KratosIdentity) -> None:
        """Take in an identity that `find` did not know."""
        if identity.id in self._identities:
            raise ValueError(f"identity {identity.id} is there already")
        self._identities[identity.id] = identity

    def __iter__(self) -> Iterator[KratosIdentity]:
        return iter(self._identities.values())

    def __len__(self) -> int:
        return len(self._identities)
