"""The table of purges: what each did, and that one runs at a time."""

from datetime import timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from application.ports.purge import AnotherPurge, PastPurge, Removed
from infrastructure.ledger.purge_lock import lock_purges

GONE: Final = timedelta(minutes=2)
"""A purge that took no step for so long is gone; steps and the rests between them are shorter."""
KEPT: Final = 1_000

# A time to come is by a clock that was ahead, and is not believed.
BEGIN: Final = text("""
    INSERT INTO kratos_sync.purges (started_at)
    SELECT clock_timestamp() WHERE NOT EXISTS (
        SELECT FROM kratos_sync.purges
        WHERE ended_at IS NULL
          AND seen_at BETWEEN clock_timestamp() - :gone AND clock_timestamp()
    )
    RETURNING id
""")

ADD: Final = text("""
    UPDATE kratos_sync.purges
    SET events = events + :events, attempts = attempts + :attempts, seen_at = clock_timestamp()
    WHERE id = :id AND id = (SELECT max(id) FROM kratos_sync.purges)
""")

END: Final = text("UPDATE kratos_sync.purges SET ended_at = clock_timestamp() WHERE id = :id")
FORGET: Final = text("DELETE FROM kratos_sync.purges WHERE id <= :id - :kept")

LAST: Final = text("""
    SELECT started_at, ended_at, events, attempts FROM kratos_sync.purges ORDER BY id DESC LIMIT 1
""")

IS_DUE: Final = text("""
    SELECT NOT EXISTS (
        SELECT FROM kratos_sync.purges
        WHERE started_at BETWEEN clock_timestamp() - :every AND clock_timestamp()
    )
""")


class PurgeEntry(NamedTuple):
    """The line of the purge that runs here."""

    id: int

    def add(self, connection: Connection, removed: Removed) -> None:
        """Add what a step removes, in its transaction. Raises AnotherPurge if one took over."""
        parameters = {"id": self.id, "events": removed.events, "attempts": removed.attempts}
        if connection.execute(ADD, parameters).rowcount == 0:
            raise AnotherPurge("another purge has taken over")

    def end(self, connection: Connection) -> None:
        """Note that it is over, and forget the oldest of many purges."""
        connection.execute(END, {"id": self.id})
        connection.execute(FORGET, {"id": self.id, "kept": KEPT})


def begin(connection: Connection) -> PurgeEntry:
    """Begin a purge, in a transaction of its own. Raises AnotherPurge while one is at work."""
    lock_purges(connection)
    entry = connection.execute(BEGIN, {"gone": GONE}).scalar_one_or_none()
    if entry is None:
        raise AnotherPurge("another purge is at work")
    return PurgeEntry(entry)


def last_purge(connection: Connection) -> PastPurge | None:
    """The newest purge; None before the first."""
    row = connection.execute(LAST).one_or_none()
    if row is None:
        return None
    return PastPurge(row.started_at, row.ended_at, Removed(row.events, row.attempts))


def is_due(connection: Connection, every: timedelta) -> bool:
    """Whether no purge began since so long ago; one at a time to come does not count."""
    due: bool = connection.execute(IS_DUE, {"every": every}).scalar_one()
    return due
