"""How much room the ledger takes, how far back it goes, and what keeps it from being tidied."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from application.ports.purge import PastPurge


@dataclass(frozen=True, slots=True)
class TableSize:
    """What a table takes on disk, with its indexes."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Holder:
    """What has kept PostgreSQL for long from reusing the room of rows that are gone.

    ``kind`` is ``transaction`` (``name`` is its process id), ``prepared transaction`` (its global
    id) or ``replication slot`` (its name). ``held_for`` is None where our role may not see it;
    ``transactions`` is how many others have begun since.
    """

    kind: str
    name: str
    application: str | None
    held_for: timedelta | None
    transactions: int | None


@dataclass(frozen=True, slots=True)
class Storage:
    """The tables, the largest first; the oldest rows kept; the newest purge; what holds it up."""

    tables: tuple[TableSize, ...] = ()
    oldest_event_at: datetime | None = None
    oldest_attempt_at: datetime | None = None
    last_purge: PastPurge | None = None
    holders: tuple[Holder, ...] = ()

    @property
    def bytes(self) -> int:
        """What all tables take."""
        return sum(table.bytes for table in self.tables)
