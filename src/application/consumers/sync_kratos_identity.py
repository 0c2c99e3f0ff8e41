"""Keeps our copy of an identity up to date."""

from collections.abc import Iterable

from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import KratosIdentityUpdated, fact_of_flow
from kratos_sync.domain.kratos_identities import KratosIdentities, RecordedWebhooks
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.domain.merging import ReceivedWebhook


class SyncKratosIdentity(Consumer[KratosIdentityUpdated]):
    """Keep our copy of an identity equal to what Kratos last said of it."""

    name = "SyncKratosIdentity"

    def __init__(self, identities: KratosIdentities, webhooks: RecordedWebhooks) -> None:
        self._identities = identities
        self._webhooks = webhooks

    def consume(self, event: KratosIdentityUpdated) -> None:
        """Add the identity when it is seen for the first time; update it otherwise."""
        identity = self._identities.find(event.identity.id)
        if identity is None:
            identity = KratosIdentity.seen(
                event.identity,
                at=event.date_occurred,
                cause=event.id,
                known_at=event.known_at,
                hinted_at=event.hinted_at,
            )
            self._identities.add(identity)
        else:
            self._update(identity, event)
        fact = fact_of_flow(event.hook, identity.id, event.date_occurred, event.id)
        if fact is not None:
            identity.observe(fact)

    def _update(self, identity: KratosIdentity, event: KratosIdentityUpdated) -> None:
        newest = identity.deleted_at or identity.seen_alive_at
        if newest is not None and event.known_at < newest:
            identity.ignore_answers_after(self._webhooks.now())
        later: Iterable[ReceivedWebhook] = ()
        if identity.needs_later_webhooks(event.identity, at=event.date_occurred):
            later = self._webhooks.after(identity.id, event.date_occurred)
        identity.update(
            event.identity,
            at=event.date_occurred,
            cause=event.id,
            known_at=event.known_at,
            later=later,
        )
