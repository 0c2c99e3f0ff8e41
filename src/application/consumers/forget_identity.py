"""Letting go of an identity because somebody asked us to."""

from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import IdentityDeletionRequested
from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.domain.kratos_identity import KratosIdentity


class ForgetIdentity(Consumer[IdentityDeletionRequested]):
    """Leave a tombstone that nothing brings back to life, and let everybody hear of it."""

    name = "ForgetIdentity"

    def __init__(self, identities: KratosIdentities) -> None:
        self._identities = identities

    def consume(self, event: IdentityDeletionRequested) -> None:
        """Forget the identity, also one never seen: it may be on its way to us."""
        identity = self._identities.find(event.identity_id)
        if identity is None:
            self._identities.add(
                KratosIdentity.erased_tombstone(
                    event.identity_id, at=event.date_occurred, cause=event.id
                )
            )
        else:
            identity.erase(at=event.date_occurred, cause=event.id)
