"""The consumers' effects, in a table with no unique key: what happens twice is there twice."""

from typing import Final
from uuid import UUID

from sqlalchemy import text

from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.postgres.transaction import Transaction

CREATE: Final = """
    CREATE TABLE fault_effects (
        event_id uuid NOT NULL,
        consumer text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    CREATE INDEX fault_effects_event ON fault_effects (event_id);
"""
WRITE: Final = text("INSERT INTO fault_effects (event_id, consumer) VALUES (:event_id, :consumer)")
SLEEP: Final = text("SELECT pg_sleep(:seconds)")


class PostgresEffects:
    """The Effects port, in one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._held: list[dict[str, object]] = []
        self._held_before = 0
        transaction.join(self)

    def write(self, event_id: UUID, consumer: str) -> None:
        """Write when the transaction commits."""
        self._held.append({"event_id": event_id, "consumer": consumer})

    def write_now(self, event_id: UUID, consumer: str) -> None:
        """Write at once."""
        self._transaction.execute(WRITE, {"event_id": event_id, "consumer": consumer})

    def sleep(self, seconds: float) -> None:
        """Let the database sleep."""
        self._transaction.execute(SLEEP, {"seconds": seconds})

    def flush(self) -> None:
        """Write what was held back."""
        if self._held:
            self._transaction.execute(WRITE, self._held)

    def savepoint(self) -> None:
        """Remember how many are held back."""
        self._held_before = len(self._held)

    def roll_back_to_savepoint(self) -> None:
        """Forget those held back since."""
        del self._held[self._held_before :]

    def collect_events(self) -> list[DomainEvent]:
        """An effect raises nothing."""
        return []
