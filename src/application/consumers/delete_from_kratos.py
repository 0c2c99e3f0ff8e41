"""The last step of a deletion: Kratos."""

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
    """Other consumers are owed something about the identity; the message names them."""

    def __init__(self, delay: timedelta, awaited: Sequence[AwaitedConsumer]) -> None:
        super().__init__(delay)
        self.add_note(", ".join(map(_told, awaited)))


class DeleteFromKratos(Consumer[IdentityDeletionRequested]):
    """Delete an identity from Kratos once nobody here is owed anything about it.

    A dead letter about the identity is owed too: it holds the deletion until somebody decides.
    Kratos may be away for as long as it likes; that is no failure.
    """

    name = "DeleteFromKratos"
    batch_size = 1

    def __init__(self, departures: DeletionFinalizer) -> None:
        self._departures = departures

    def consume(self, event: IdentityDeletionRequested) -> None:
        """Wait for the others, then delete; whoever was deleted before is no failure."""
        wait = scattered(part_of_age(event))
        if awaited := self._departures.awaited(event.identity_id, self.name):
            raise WaitsForOthers(wait, awaited)
        try:
            self._departures.delete_from_kratos(event.identity_id)
        except KratosUnavailable as error:
            raise later(max(wait, error.retry_after or timedelta()), error) from None
        except KratosNotConfigured as error:
            # Another worker may have the URL; the person is forgotten here already.
            raise later(max(wait, WAIT_FOR_A_URL), error) from None
        if event.erase:
            self._departures.request_erasure(event.identity_id, event.by or "unknown", ERASED_WITH)


def _told(owed: AwaitedConsumer) -> str:
    dead = f", {owed.dead_letters} of them dead letters" if owed.dead_letters else ""
    return f"{owed.consumer} is owed {owed.deliveries}{dead}"
