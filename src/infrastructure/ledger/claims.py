"""Leasing due deliveries to the relay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Engine, text

from infrastructure.database import errors_in_our_words

# One look at everything: per consumer what is under lease, and when the next delivery is due.
SURVEY = text("""
    SELECT wanted.name,
           (SELECT count(*) FROM kratos_sync.deliveries
            WHERE consumer = wanted.name AND failed_at IS NULL AND leased AND due_at > now()),
           (SELECT extract(epoch FROM least(
               (SELECT min(due_at) FROM kratos_sync.deliveries
                WHERE consumer = wanted.name AND failed_at IS NULL AND NOT leased),
               (SELECT min(due_at) FROM kratos_sync.deliveries
                WHERE consumer = wanted.name AND failed_at IS NULL AND leased)) - now()))
    FROM unnest(CAST(:consumers AS text[])) AS wanted (name)
""")

# What was leased in vain comes first: else a backlog that nobody works on would be leased, and sent
# to the broker, bit by bit and all of it.
CLAIM = text("""
    WITH expired AS (
        SELECT event_id, leased FROM kratos_sync.deliveries
        WHERE consumer = :consumer AND failed_at IS NULL AND leased AND due_at <= now()
        ORDER BY due_at, event_id
        LIMIT :most
        FOR UPDATE SKIP LOCKED
    ), fresh AS (
        SELECT event_id, leased FROM kratos_sync.deliveries
        WHERE consumer = :consumer AND failed_at IS NULL AND NOT leased AND due_at <= now()
        ORDER BY due_at, event_id
        LIMIT :most - (SELECT count(*) FROM expired)
        FOR UPDATE SKIP LOCKED
    ), due AS (
        SELECT event_id, leased FROM expired UNION ALL SELECT event_id, leased FROM fresh
    )
    UPDATE kratos_sync.deliveries d
    SET due_at = now() + :lease, leased = true
    FROM due
    WHERE d.consumer = :consumer AND d.event_id = due.event_id
    RETURNING d.subject, d.event_id, due.leased
""")

GIVE_BACK = text("""
    WITH given AS (
        SELECT event_id FROM kratos_sync.deliveries
        WHERE consumer = :consumer AND event_id = ANY(:event_ids) AND leased
        FOR UPDATE SKIP LOCKED
    )
    UPDATE kratos_sync.deliveries d SET due_at = now(), leased = false
    FROM given WHERE d.consumer = :consumer AND d.event_id = given.event_id
""")


# A row that a worker holds is being worked on: nobody waits for it.
END_LOST = text("""
    WITH lost AS (
        SELECT event_id FROM kratos_sync.deliveries
        WHERE consumer = :consumer AND failed_at IS NULL AND leased
          AND due_at > now() AND due_at < now() + :oldest
        FOR UPDATE SKIP LOCKED
    )
    UPDATE kratos_sync.deliveries d SET due_at = now(), leased = false
    FROM lost WHERE d.consumer = :consumer AND d.event_id = lost.event_id
""")
MOMENT = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a consumer is owed: how much is under lease, and in how long the next one is due.

    ``due_in`` is negative for what is overdue, and None where nothing is owed at all.
    """

    leased: int
    due_in: timedelta | None

    @property
    def is_due(self) -> bool:
        """Whether something may be claimed now."""
        return self.due_in is not None and self.due_in <= timedelta()


@dataclass(frozen=True, slots=True)
class Claim:
    """Deliveries leased just now; ``expired`` of them had been leased before, in vain.

    The ids of events that concern one identity stand side by side: in one batch they share a row
    lock, in two they would wait for each other.
    """

    event_ids: list[UUID]
    expired: int


class PostgresClaims:
    """Claims by state, in short transactions of their own; the database's clock decides."""

    def __init__(self, engine: Engine, lease: timedelta) -> None:
        self._engine = engine
        self._lease = lease

    def survey(self, consumers: Sequence[str]) -> Mapping[str, Backlog]:
        """Look at what these consumers are owed. Raises LedgerUnavailable."""
        with errors_in_our_words(), self._engine.begin() as connection:
            rows = connection.execute(SURVEY, {"consumers": list(consumers)})
            return {
                name: Backlog(leased, None if due is None else timedelta(seconds=float(due)))
                for name, leased, due in rows
            }

    def claim(self, consumer: str, most: int) -> Claim:
        """Lease up to so many due deliveries, the longest due first. Raises LedgerUnavailable."""
        parameters = {"consumer": consumer, "most": most, "lease": self._lease}
        with errors_in_our_words(), self._engine.begin() as connection:
            rows = connection.execute(CLAIM, parameters).all()
        ids = [event_id for _, event_id in sorted((row.subject, row.event_id) for row in rows)]
        return Claim(ids, sum(row.leased for row in rows))

    def end_lost_leases(self, consumer: str) -> int:
        """End leases that have lasted a moment: their messages are known to be gone.

        A younger one may be on its way to the broker. Gives how many. Raises LedgerUnavailable.
        """
        parameters = {"consumer": consumer, "oldest": self._lease - MOMENT}
        with errors_in_our_words(), self._engine.begin() as connection:
            return connection.execute(END_LOST, parameters).rowcount

    def give_back(self, consumer: str, event_ids: Sequence[UUID]) -> None:
        """End leases early: their deliveries are due at once. Raises LedgerUnavailable."""
        parameters = {"consumer": consumer, "event_ids": list(event_ids)}
        with errors_in_our_words(), self._engine.begin() as connection:
            connection.execute(GIVE_BACK, parameters)
