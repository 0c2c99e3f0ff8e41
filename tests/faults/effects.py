"""The consumers' effects, in a table with no unique key: what happens twice is there twice.

Those outside the database are lines of a file, which no transaction takes back.
"""

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import text

from kratos_sync.domain.events import DomainEvent
from kratos_sync.infrastructure.postgres.transaction import Transaction

CREATE: Final = """
    CREATE TABLE fault_effects (
        event_id uuid NOT NULL,
        consumer text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        number bigint GENERATED ALWAYS AS IDENTITY,
        owed_at timestamptz
    );
    CREATE INDEX fault_effects_event ON fault_effects (event_id);
"""
WRITE: Final = text("INSERT INTO fault_effects (event_id, consumer) VALUES (:event_id, :consumer)")
WRITE_IN_TURN: Final = text("""
    INSERT INTO fault_effects (event_id, consumer, owed_at)
    SELECT event_id, consumer, owed_at FROM kratos_sync.deliveries
    WHERE event_id = :event_id AND consumer = :consumer
""")
ELSEWHERE: Final = "FAULTS_ELSEWHERE"
"""The variable that names the file of the effects outside the database."""
SLEEP: Final = text("SELECT pg_sleep(:seconds)")


class PostgresEffects:
    """The Effects port, in one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._held: list[dict[str, object]] = []
        self._in_turn: list[dict[str, object]] = []
        self._held_before = self._in_turn_before = 0
        transaction.join(self)

    def write(self, event_id: UUID, consumer: str) -> None:
        """Write when the transaction commits."""
        self._held.append({"event_id": event_id, "consumer": consumer})

    def write_now(self, event_id: UUID, consumer: str) -> None:
        """Write at once."""
        self._transaction.execute(WRITE, {"event_id": event_id, "consumer": consumer})

    def write_in_turn(self, event_id: UUID, consumer: str) -> None:
        """Write once the batch is consumed, with when each delivery was recorded."""
        self._in_turn.append({"event_id": event_id, "consumer": consumer})

    def sleep(self, seconds: float) -> None:
        """Let the database sleep."""
        self._transaction.execute(SLEEP, {"seconds": seconds})

    def flush(self) -> None:
        """Write what was held back."""
        if self._held:
            self._transaction.execute(WRITE, self._held)

    def savepoint(self) -> None:
        """Remember how many are held back."""
        self._held_before, self._in_turn_before = len(self._held), len(self._in_turn)

    def roll_back_to_savepoint(self) -> None:
        """Forget those held back since."""
        del self._held[self._held_before :]
        del self._in_turn[self._in_turn_before :]

    def collect_events(self) -> list[DomainEvent]:
        """Raise nothing; write what needs the deliveries, which are gone in the end."""
        if self._in_turn:
            self._transaction.execute(WRITE_IN_TURN, self._in_turn)
            self._in_turn.clear()
        return []


class FileElsewhere:
    """The Elsewhere port: appends a line at once, whoever else does."""

    def __init__(self, _settings: None = None) -> None:
        self._file = os.open(os.environ[ELSEWHERE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, event_id: UUID) -> None:
        """Write the effect, and when it was, by a clock that does not jump."""
        os.write(self._file, f"{event_id} {time.monotonic()}\n".encode())


def effects_elsewhere(file: Path) -> Mapping[UUID, Sequence[float]]:
    """When each event took effect, in seconds of the wall clock."""
    ahead = time.time() - time.monotonic()
    times: dict[UUID, list[float]] = defaultdict(list)
    for line in file.read_text().splitlines():
        event_id, at = line.split()
        times[UUID(event_id)].append(float(at) + ahead)
    return times
