"""Recording a group of events, on one connection and by one statement."""

from collections.abc import Sequence
from typing import Final, Self

from psycopg.pq import Format

from infrastructure.connecting import Arguments
from infrastructure.ledger.event_rows import EventRow
from infrastructure.ledger.loop_connection import LoopConnection
from infrastructure.ledger.record import RECORD_WEBHOOKS, arrays_of

_NAME: Final = b"record_group"
_BINARY: Final = [Format.BINARY] * 11


class GroupRecorder:
    """Records groups of events, each in one round trip and one commit; one at a time."""

    def __init__(self, connection: LoopConnection) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, arguments: Arguments) -> Self:
        """Connect with these arguments."""
        connection = await LoopConnection.connect(arguments)
        try:
            await connection.ask(lambda: connection.libpq.send_prepare(_NAME, RECORD_WEBHOOKS))
        except BaseException:
            await connection.close()
            raise
        return cls(connection)

    @property
    def is_lost(self) -> bool:
        """Whether nothing more can be recorded here."""
        return self._connection.is_lost

    async def record(self, rows: Sequence[EventRow]) -> list[bool]:
        """Record rows and what is owed of them in one commit, and tell of each whether it was new.

        Of rows with one id or dedupe key only the first is new. Raises psycopg.Error.
        """
        values = arrays_of(rows)
        libpq = self._connection.libpq
        result = await self._connection.ask(
            lambda: libpq.send_query_prepared(_NAME, values, _BINARY, Format.BINARY)
        )
        if result.ntuples == len(rows):
            return [True] * len(rows)
        new = {result.get_value(row, 0) for row in range(result.ntuples)}
        recorded = []
        for row in rows:
            recorded.append(row.id[4:] in new)
            new.discard(row.id[4:])
        return recorded

    async def close(self) -> None:
        """Give the connection up."""
        await self._connection.close()
