"""Letting go of an identity that Kratos no longer has."""

from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import KratosIdentityGone
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.domain.kratos_identity import KratosIdentity


class DeleteKratosIdentity(Consumer[KratosIdentityGone]):
    """Leave a tombstone in place of an identity that was seen to be deleted."""

    name = "DeleteKratosIdentity"

    def __init__(self, identities: KratosIdentities) -> None:
        self._identities = identities

    def consume(self, event: KratosIdentityGone) -> None:
        """Bury the identity, also one never seen: a late webhook must not bring it to life."""
        identity = self._identities.find(event.identity_id)
        if identity is None:
            self._identities.add(
                KratosIdentity.tombstone(event.identity_id, at=event.date_occurred, cause=event.id)
            )
        else:
            identity.mark_deleted(at=event.date_occurred, cause=event.id)
