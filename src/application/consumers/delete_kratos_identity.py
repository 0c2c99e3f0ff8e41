"""Deletes our copy of an identity that Kratos no longer has."""

from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import KratosIdentityGone
from kratos_sync.domain.kratos_identities import KratosIdentities, find_or_add


class DeleteKratosIdentity(Consumer[KratosIdentityGone]):
    """Leave a tombstone in place of an identity that was deleted from Kratos."""

    name = "DeleteKratosIdentity"

    def __init__(self, identities: KratosIdentities) -> None:
        self._identities = identities

    def consume(self, event: KratosIdentityGone) -> None:
        """Mark the copy deleted, also of an identity never seen: a webhook may come late."""
        identity = find_or_add(self._identities, event.identity_id, at=event.date_occurred)
        identity.mark_deleted(at=event.date_occurred, cause=event.id)
