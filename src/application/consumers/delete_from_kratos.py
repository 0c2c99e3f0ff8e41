"""The last step of a deletion: Kratos."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Final

from application.consumer import Consumer, RetryLater
from application.ports.departures import Departures, OwedTo
from application.ports.kratos import KratosNotConfigured, KratosUnavailable
from domain.events import IdentityDeletionRequested

PART_OF_AGE: Final = 4
"""What waits is looked at again after such a part of the time that it has waited,"""
LONGEST_WAIT: Final = timedelta(minutes=5)
"""and this at most: who waits for a dead letter may wait for days."""
WAIT_FOR_A_URL: Final = timedelta(minutes=1)
ERASED_WITH: Final = "erased at the end of its deletion"


class WaitsForOthers(RetryLater):
    """Other consumers are owed something about the identity; the message names them."""

    def __init__(self, delay: timedelta, awaited: Sequence[OwedTo]) -> None:
        super().__init__(delay)
        self.add_note(", ".join(map(_told, awaited)))


class DeleteFromKratos(Consumer[IdentityDeletionRequested]):
    """Delete an identity from Kratos once nobody here is owed anything about it.

    A dead letter about the identity is owed too: it holds the deletion until somebody decides.
    Kratos may be away for as long as it likes; that is no failure.
    """

    name = "DeleteFromKratos"
    batch_size = 1

    def __init__(self, departures: Departures) -> None:
        self._departures = departures

    def consume(self, event: IdentityDeletionRequested) -> None:
        """Wait for the others, then delete; whoever was deleted before is no failure."""
        if awaited := self._departures.awaited(event.identity_id, self.name):
            raise WaitsForOthers(_wait(event), awaited)
        try:
            self._departures.delete_from_kratos(event.identity_id)
        except KratosUnavailable as error:
            later = RetryLater(max(_wait(event), error.retry_after or timedelta()))
            later.add_note(str(error))
            raise later from None
        except KratosNotConfigured as error:
            # Another worker may have the URL; the person is forgotten here already.
            later = RetryLater(max(_wait(event), WAIT_FOR_A_URL))
            later.add_note(str(error))
            raise later from None
        if event.erase:
            self._departures.have_erased(event.identity_id, event.by or "unknown", ERASED_WITH)


def _wait(event: IdentityDeletionRequested) -> timedelta:
    """How long to wait, by the request's age: clocks differ, and little depends on it."""
    age = datetime.now(UTC) - event.date_occurred
    return min(age / PART_OF_AGE, LONGEST_WAIT) * uniform(1.0, 1.3)  # noqa: S311


def _told(owed: OwedTo) -> str:
    dead = f", {owed.dead_letters} of them dead letters" if owed.dead_letters else ""
    return f"{owed.consumer} is owed {owed.deliveries}{dead}"
