"""Keeping our copy of an identity."""

from application.consumer import Consumer
from domain.events import KratosIdentityUpdated
from domain.kratos_identities import KratosIdentities
from domain.kratos_identity import KratosIdentity


class SyncKratosIdentity(Consumer[KratosIdentityUpdated]):
    """Keep our copy of an identity equal to what Kratos last said of it."""

    name = "SyncKratosIdentity"

    def __init__(self, identities: KratosIdentities) -> None:
        self._identities = identities

    def consume(self, event: KratosIdentityUpdated) -> None:
        """Add the identity when it is seen for the first time; update it otherwise."""
        identity = self._identities.find(event.identity.id)
        if identity is None:
            self._identities.add(
                KratosIdentity.seen(
                    event.identity,
                    at=event.date_occurred,
                    cause=event.id,
                    heard_at=event.heard_at,
                )
            )
        else:
            identity.update(event.identity, at=event.date_occurred, cause=event.id)
