"""Erases our copy of an identity whose deletion was requested."""

from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import IdentityDeletionRequested
from kratos_sync.domain.kratos_identities import KratosIdentities, find_or_add


class ForgetIdentity(Consumer[IdentityDeletionRequested]):
    """Leave a tombstone for good, and raise IdentityDeleted for the other consumers."""

    name = "ForgetIdentity"

    def __init__(self, identities: KratosIdentities) -> None:
        self._identities = identities

    def consume(self, event: IdentityDeletionRequested) -> None:
        """Erase the copy, also of an identity never seen: a webhook may be on its way."""
        identity = find_or_add(self._identities, event.identity_id, at=event.date_occurred)
        identity.erase(at=event.date_occurred, cause=event.id)
