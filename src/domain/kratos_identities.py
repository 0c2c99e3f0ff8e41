"""The port through which consumers reach the identities that we hold."""

from typing import Protocol
from uuid import UUID

from kratos_sync.domain.kratos_identity import KratosIdentity


class KratosIdentities(Protocol):
    """Every identity that we hold, tombstones too, each at most once.

    What `find` gave or `add` took is stored, as it is by then, when its unit of work commits.
    """

    def find(self, identity_id: UUID) -> KratosIdentity | None:
        """The identity of that id, or None when we never heard of it."""
        ...

    def add(self, identity: KratosIdentity) -> None:
        """Take in an identity that `find` did not know."""
        ...
