"""Letting go of an identity because somebody asked us to."""

from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import IdentityDeletionRequested
from kratos_sync.domain.kratos_identities import KratosIdentities, erase_copy


class ForgetIdentity(Consumer[IdentityDeletionRequested]):
    """Leave a tombstone that nothing brings back to life, and let everybody hear of it."""

    name = "ForgetIdentity"

    def __init__(self, identities: KratosIdentities) -> None:
        self._identities = identities

    def consume(self, event: IdentityDeletionRequested) -> None:
        """Forget the identity, also one never seen: it may be on its way to us."""
        erase_copy(self._identities, event.identity_id, at=event.date_occurred, cause=event.id)
