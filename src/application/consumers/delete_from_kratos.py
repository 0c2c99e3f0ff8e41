"""Deletes an identity from Kratos, the last step of its deletion."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from kratos_sync.application.consumer import Consumer, RetryLater
from kratos_sync.application.ports.deletions import AwaitedConsumer, DeletionFinalizer
from kratos_sync.application.ports.kratos import KratosNotConfigured, KratosUnavailable
from kratos_sync.application.retry_delays import WAIT_FOR_A_URL, later, part_of_age, scattered
from kratos_sync.domain.events import IdentityDeletionRequested

ERASED_WITH: Final = "erased at the end of its deletion"


class WaitsForOthers(RetryLater):
    """Other consumers have deliveries about the identity; the note names them."""

    def __init__(self, delay: timedelta, awaited: Sequence[AwaitedConsumer]) -> None:
        super().__init__(delay)
        self.add_note(", ".join(map(_described, awaited)))


class DeleteFromKratos(Consumer[IdentityDeletionRequested]):
    """Delete an identity from Kratos once no other consumer has a delivery about it.

    A dead letter about the identity holds the deletion too, until it is retried or discarded. While
    Kratos is unavailable the request is postponed, which is no failure.
    """

    name = "DeleteFromKratos"
    batch_size = 1

    def __init__(self, finalizer: DeletionFinalizer) -> None:
        self._finalizer = finalizer

    def consume(self, event: IdentityDeletionRequested) -> None:
        """Wait for the others, then delete; an identity that is gone already is no failure."""
        wait = scattered(part_of_age(event))
        if awaited := self._finalizer.awaited(event.identity_id, self.name):
            raise WaitsForOthers(wait, awaited)
        try:
            self._finalizer.delete_from_kratos(event.identity_id)
        except KratosUnavailable as error:
            raise later(max(wait, error.retry_after or timedelta()), error) from None
        except KratosNotConfigured as error:
            # Another worker may have the URL; our own copy is erased already.
            raise later(max(wait, WAIT_FOR_A_URL), error) from None
        if event.erase:
            self._finalizer.request_erasure(event.identity_id, event.by or "unknown", ERASED_WITH)


def _described(awaited: AwaitedConsumer) -> str:
    dead = f", {awaited.dead_letters} of them dead letters" if awaited.dead_letters else ""
    return f"{awaited.consumer} has {awaited.deliveries} pending{dead}"
