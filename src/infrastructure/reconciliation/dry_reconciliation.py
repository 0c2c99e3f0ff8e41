"""A reconciliation that only looks."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from application.ports.reconciliation import Findings
from infrastructure.reconciliation import runs, unseen
from infrastructure.reconciliation.comparison import Differing
from infrastructure.reconciliation.reconciliation import PostgresReconciliation, gone_in_kratos
from infrastructure.reconciliation.unseen import BYTES_PER_ID, Stretch


class DryReconciliation(PostgresReconciliation):
    """Compares in the same way, and writes nothing."""

    def __init__(
        self, connection: Connection, run: runs.Run, schema_urls: Collection[str], *, resumed: bool
    ) -> None:
        super().__init__(connection, run, schema_urls, resumed=resumed)
        self._unsettled = bytearray()

    def unseen(self, most: int) -> Sequence[UUID]:
        """Give some that were not settled."""
        some = self._unsettled[: most * BYTES_PER_ID]
        starts = range(0, len(some), BYTES_PER_ID)
        return [UUID(bytes=bytes(some[start : start + BYTES_PER_ID])) for start in starts]

    def settle(self, gone: Sequence[UUID], there: Sequence[UUID], at: datetime) -> None:  # noqa: ARG002  # as the port
        """Count those that are gone."""
        self.findings = replace(self.findings, gone=self.findings.gone + len(gone))
        self.differences = gone_in_kratos(gone)
        del self._unsettled[: (len(gone) + len(there)) * BYTES_PER_ID]

    def start_over(self) -> None:
        """It began here, so there is nothing from before."""
        raise AssertionError("a dry reconciliation is never resumed")

    def end(self, outcome: str) -> None:  # noqa: ARG002  # as the port
        """Forget it."""
        self.differences = []

    def _tell(self, connection: Connection, new: Sequence[Differing], at: datetime) -> None:
        """Nobody is told."""

    def _keep_unseen(self, connection: Connection, stretch: Stretch) -> int:
        found = unseen.ids(connection, stretch)
        self._unsettled += found
        return len(found) // BYTES_PER_ID

    def _note(self, connection: Connection, place: runs.Place, findings: Findings) -> None:
        """Nothing is noted."""
