"""The last steps of a deletion, in memory."""

from collections.abc import Sequence
from uuid import UUID

from kratos_sync.application.ports.deletions import AwaitedConsumer
from tests.fakes.kratos_admin import InMemoryKratos


class InMemoryDeletionFinalizer:
    """A `DeletionFinalizer` port; a test says by ``owed`` who is not done."""

    def __init__(self, kratos: InMemoryKratos) -> None:
        self._kratos = kratos
        self.owed: list[AwaitedConsumer] = []
        self.erased: list[tuple[UUID, str, str]] = []

    def awaited(self, identity_id: UUID, besides: str) -> Sequence[AwaitedConsumer]:  # as the port
        """Whoever the test says, besides one."""
        return [each for each in self.owed if each.consumer != besides]

    def delete_from_kratos(self, identity_id: UUID) -> bool:
        """Ask the Kratos at hand."""
        return self._kratos.delete(identity_id)

    def request_erasure(self, identity_id: UUID, by: str, reason: str) -> None:
        """Remember it."""
        self.erased.append((identity_id, by, reason))
