"""The identities that we hold, in memory."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from uuid import UUID

from kratos_sync.domain.kratos_identity import KratosIdentity


class InMemoryKratosIdentities:
    """A `KratosIdentities` that keeps what it is given, and lets a test look at all of it."""

    def __init__(self, identities: Iterable[KratosIdentity] = ()) -> None:
        self._identities = {identity.id: identity for identity in identities}
        self._before: dict[UUID, KratosIdentity | None] | None = None

    def savepoint(self) -> None:
        """Remember how the identities stand: each as it is when it is next asked for."""
        self._before = {}

    def roll_back_to_savepoint(self) -> None:
        """Go back to the savepoint."""
        for identity_id, before in (self._before or {}).items():
            if before is not None:
                self._identities[identity_id] = before
            else:
                self._identities.pop(identity_id, None)
        self._before = {}

    def find(self, identity_id: UUID) -> KratosIdentity | None:
        """The identity of that id, or None when we never heard of it."""
        if self._before is not None and identity_id not in self._before:
            self._before[identity_id] = deepcopy(self._identities.get(identity_id))
        return self._identities.get(identity_id)

    def add(self, identity: KratosIdentity) -> None:
        """Take in an identity that `find` did not know."""
        if identity.id in self._identities:
            raise ValueError(f"identity {identity.id} is there already")
        if self._before is not None:
            self._before.setdefault(identity.id, None)
        self._identities[identity.id] = identity

    def __iter__(self) -> Iterator[KratosIdentity]:
        return iter(self._identities.values())

    def __len__(self) -> int:
        return len(self._identities)
