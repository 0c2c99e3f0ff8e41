"""The last steps of a deletion, in the transaction that settles its request."""

from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Final
from uuid import UUID

from application.ports.departures import OwedTo
from application.ports.kratos import KratosAdmin
from infrastructure.erasure.wishes import note_wish
from infrastructure.transaction import Transaction

# By the events' index: none leads from a subject to its deliveries.
AWAITED: Final = """
    SELECT d.consumer, count(*), count(d.failed_at)
    FROM kratos_sync.events e JOIN kratos_sync.deliveries d ON d.event_id = e.id
    WHERE e.subject = $1::uuid AND d.consumer <> $2
    GROUP BY d.consumer ORDER BY d.consumer
"""


class PostgresDepartures:
    """The Departures port; ``kratos`` gives the Admin API, or raises KratosNotConfigured."""

    def __init__(self, transaction: Transaction, kratos: Callable[[], KratosAdmin]) -> None:
        self._transaction = transaction
        self._kratos = kratos

    def awaited(self, identity_id: UUID, besides: str) -> Sequence[OwedTo]:
        """Look at what is committed by now."""
        return list(starmap(OwedTo, self._transaction.fetch(AWAITED, (identity_id, besides))))

    def delete_from_kratos(self, identity_id: UUID) -> bool:
        """Ask the Admin API, within its time limits."""
        return self._kratos().delete(identity_id)

    def have_erased(self, identity_id: UUID, by: str, reason: str) -> None:
        """Take note of it, for a relay."""
        note_wish(self._transaction, identity_id, by, reason)
