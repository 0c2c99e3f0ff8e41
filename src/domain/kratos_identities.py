"""The ports through which consumers reach identities, and the webhooks recorded about them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol
from uuid import UUID

from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.domain.merging import ReceivedWebhook


class KratosIdentities(Protocol):
    """The identities that are stored, tombstones too, each at most once.

    What `find` returned or `add` took is written, as it is by then, when its unit of work commits.
    """

    def find(self, identity_id: UUID) -> KratosIdentity | None:
        """The identity of that id, locked; None when none is stored."""
        ...

    def add(self, identity: KratosIdentity) -> None:
        """Add an identity that `find` did not know."""
        ...


def find_or_add(identities: KratosIdentities, identity_id: UUID, *, at: datetime) -> KratosIdentity:
    """The identity of that id; one of which nothing is known is added when none is stored."""
    identity = identities.find(identity_id)
    if identity is None:
        identity = KratosIdentity.unseen(identity_id, at=at)
        identities.add(identity)
    return identity


class RecordedWebhooks(Protocol):
    """Every webhook recorded in the ledger, whether it was consumed or not."""

    def now(self) -> datetime:
        """The ledger's time."""
        ...

    def after(self, identity_id: UUID, moment: datetime) -> Iterable[ReceivedWebhook]:
        """The webhooks about an identity recorded after that moment, to be iterated once.

        Call `KratosIdentities.find` first: it locks the identity.
        """
        ...
