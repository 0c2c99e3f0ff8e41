"""Claims: the relay leases due deliveries."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Final, NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy import Engine, TextClause, text

from kratos_sync.application.footprint import BATCH_BYTES, SMALL_BYTES
from kratos_sync.application.ports.dead_letters import WAITS_FOR_EARLIER
from kratos_sync.infrastructure.ledger.backlog import Backlog, LowWaterMarks, survey
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array
from kratos_sync.infrastructure.postgres.engine import driver_of, translate_errors

LEASED_BYTES: Final = 2 * BATCH_BYTES
"""How many bytes the leased large deliveries of one consumer may take together."""

MOST_COUNTED: Final = 30
"""How many earlier deliveries about its identity are counted, of one that waits for its turn."""

# Expired leases come first: else a backlog that no worker processes would be dispatched bit by bit.
# Clocks may have been ahead: no lease lasts longer than an hour, and what was never attempted is
# due whatever its time, unless it was set aside for less than a second.
# By ctid: joined by id, the planner may read the whole table for every claim.
# Large deliveries are claimed separately, bounded in bytes with those under lease, and at least
# one: so the others pass them.
_CLAIM: Final = f"""
    WITH expired AS MATERIALIZED (
        SELECT ctid FROM kratos_sync.deliveries
        WHERE consumer = $1 AND failed_at IS NULL AND leased AND due_at <= now()
          AND due_at >= coalesce($5::timestamptz, '-infinity')
        ORDER BY due_at
        LIMIT $2::integer
        FOR UPDATE SKIP LOCKED
    ), ahead AS MATERIALIZED (
        SELECT ctid FROM kratos_sync.deliveries
        WHERE consumer = $1 AND failed_at IS NULL AND leased AND due_at > now() + interval '1 h'
        ORDER BY due_at
        LIMIT $2::integer - (SELECT count(*) FROM expired)
        FOR UPDATE SKIP LOCKED
    ), leased AS MATERIALIZED (
        SELECT ctid FROM expired UNION ALL SELECT ctid FROM ahead
    ), fresh AS MATERIALIZED (
        SELECT ctid FROM kratos_sync.deliveries
        WHERE consumer = $1 AND failed_at IS NULL AND NOT leased AND due_at <= now()
          AND due_at >= coalesce($4::timestamptz, '-infinity')
          AND (footprint <= {SMALL_BYTES} OR footprint IS NULL)
        ORDER BY due_at
        LIMIT $2::integer - (SELECT count(*) FROM leased)
        FOR UPDATE SKIP LOCKED
    ), unattempted AS MATERIALIZED (
        SELECT ctid FROM kratos_sync.deliveries
        WHERE consumer = $1 AND failed_at IS NULL AND NOT leased
          AND attempts = 0 AND error_type IS NULL AND due_at > now() + interval '1 s'
          AND (footprint <= {SMALL_BYTES} OR footprint IS NULL)
        ORDER BY due_at
        LIMIT $2::integer - (SELECT count(*) FROM leased) - (SELECT count(*) FROM fresh)
        FOR UPDATE SKIP LOCKED
    ), large AS MATERIALIZED (
        SELECT ctid, due_at, footprint FROM kratos_sync.deliveries
        WHERE consumer = $1 AND failed_at IS NULL AND NOT leased
          AND (due_at <= now() OR due_at > now() + interval '1 s'
                              AND attempts = 0 AND error_type IS NULL)
          AND footprint > {SMALL_BYTES}
        ORDER BY due_at
        LIMIT least($2::integer, {LEASED_BYTES // SMALL_BYTES})
        FOR UPDATE SKIP LOCKED
    ), fitting AS (
        SELECT ctid FROM (
            SELECT ctid, sum(footprint) OVER (ORDER BY due_at, ctid) - footprint AS before
            FROM large) AS counted
        WHERE before + (
            SELECT coalesce(sum(footprint), 0) FROM kratos_sync.deliveries
            WHERE consumer = $1 AND failed_at IS NULL AND leased AND footprint > {SMALL_BYTES}
        ) < {LEASED_BYTES}
    ), chosen AS (
        SELECT ctid FROM leased UNION ALL SELECT ctid FROM fresh
        UNION ALL SELECT ctid FROM unattempted UNION ALL SELECT ctid FROM fitting
    ){{waiting}}, claimed AS (
        UPDATE kratos_sync.deliveries
        SET due_at = now() + $3::interval, leased = true
        WHERE ctid = ANY(ARRAY(SELECT ctid FROM chosen{{except_waiting}}))
        RETURNING subject, event_id, coalesce(footprint, 0) AS footprint
    )
    SELECT subject::text, event_id::text, footprint, (SELECT count(*) FROM leased),
           {{set_back}}
    FROM (SELECT) AS always LEFT JOIN claimed ON true
    ORDER BY footprint > {SMALL_BYTES}, claimed.subject, claimed.event_id
"""  # noqa: S608  # the numbers are ours

CLAIM: Final = _CLAIM.format(waiting="", except_waiting="", set_back="0")
# Of an ordered consumer: what has an earlier delivery about its identity waits. It is due again
# when that one is settled (WAKE), or looked at again: that one may have been discarded, or died.
# The more are before it the later: else every claim would look at most of a backlog in vain.
_EARLIER: Final = """
    SELECT FROM kratos_sync.deliveries earlier
    WHERE earlier.ordered AND earlier.consumer = $1 AND earlier.subject = d.subject
      AND (earlier.owed_at, earlier.event_id) < (d.owed_at, d.event_id)
      AND (earlier.failed_at IS NULL OR NOT $6::boolean)
"""
_WAITING: Final = f"""
    ), waiting AS MATERIALIZED (
        SELECT d.ctid FROM kratos_sync.deliveries d
        WHERE d.ctid = ANY(ARRAY(SELECT ctid FROM chosen)) AND EXISTS ({_EARLIER} OFFSET 0)
    ), set_back AS (
        UPDATE kratos_sync.deliveries d
        SET due_at = now() + interval '10 s' * (
                SELECT count(*) FROM ({_EARLIER} LIMIT {MOST_COUNTED}) AS earlier),
            leased = false,
            error_type = CASE WHEN attempts = 0 THEN '{WAITS_FOR_EARLIER}' ELSE error_type END
        WHERE ctid = ANY(ARRAY(SELECT ctid FROM waiting))
    """  # noqa: S608  # the numbers and the type are ours
CLAIM_IN_ORDER: Final = _CLAIM.format(
    waiting=_WAITING.strip().removeprefix(")").rstrip() + "\n    )",
    except_waiting=" WHERE ctid <> ALL(ARRAY(SELECT ctid FROM waiting))",
    set_back="(SELECT count(*) FROM waiting)",
)

# Two relays that count at the same moment would both find room.
ONE_CLAIM_AT_A_TIME: Final = """
    SELECT pg_advisory_xact_lock(hashtextextended('kratos_sync.claim.' || $1, 0))
"""
LEASED: Final = """
    SELECT count(*) FROM kratos_sync.deliveries
    WHERE consumer = $1 AND failed_at IS NULL AND leased AND due_at > now()
"""

RELEASE = text("""
    UPDATE kratos_sync.deliveries SET due_at = now(), leased = false
    WHERE consumer = :consumer AND event_id = ANY(CAST(:event_ids AS uuid[])) AND leased
""")
RELEASE_UNLOCKED = text("""
    WITH unlocked AS (
        SELECT event_id FROM kratos_sync.deliveries
        WHERE consumer = :consumer AND event_id = ANY(CAST(:event_ids AS uuid[])) AND leased
        FOR UPDATE SKIP LOCKED
    )
    UPDATE kratos_sync.deliveries d SET due_at = now(), leased = false
    FROM unlocked WHERE d.consumer = :consumer AND d.event_id = unlocked.event_id
""")

# A locked row is being processed. A lease longer than ours was written by a clock that was ahead.
END_LOST = text("""
    WITH lost AS (
        SELECT event_id FROM kratos_sync.deliveries
        WHERE consumer = :consumer AND failed_at IS NULL AND leased
          AND due_at > greatest(now(), CAST(:mark AS timestamptz))
          AND NOT due_at BETWEEN now() + :oldest AND now() + 2 * CAST(:lease AS interval)
        FOR UPDATE SKIP LOCKED
    )
    UPDATE kratos_sync.deliveries d SET due_at = now(), leased = false
    FROM lost WHERE d.consumer = :consumer AND d.event_id = lost.event_id
""")
MOMENT = timedelta(seconds=2)


class Claimed(NamedTuple):
    """A delivery that was just leased; the ids are text."""

    subject: str
    event_id: str
    footprint: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """Deliveries that were just leased: small ones first, those of one subject side by side.

    ``expired`` of them had a lease before that ran out. ``set_back`` is how many others were due
    and wait for an earlier one about their identity.
    """

    deliveries: Sequence[Claimed]
    expired: int
    set_back: int = 0

    @property
    def event_ids(self) -> list[UUID]:
        return [UUID(delivery.event_id) for delivery in self.deliveries]

    def batches(self, most: int) -> Iterator[list[str]]:
        """Divide the events into batches of small or large ones, bounded in number and bytes.

        The events of one identity stay together: two batches would wait for each other's row lock.
        """
        batch: list[str] = []
        footprint, is_large = 0, False
        for of_one in self._pieces(most):
            more = sum(delivery.footprint for delivery in of_one)
            was_large, is_large = is_large, of_one[0].footprint > SMALL_BYTES
            if batch and (
                len(batch) + len(of_one) > most
                or footprint + more > BATCH_BYTES
                or is_large != was_large
            ):
                yield batch
                batch, footprint = [], 0
            batch += [delivery.event_id for delivery in of_one]
            footprint += more
        if batch:
            yield batch

    def _pieces(self, most: int) -> Iterator[list[Claimed]]:
        """The events of each identity, in pieces that fit into a batch."""
        for _, group in groupby(self.deliveries, key=_subject_and_kind):
            piece: list[Claimed] = []
            footprint = 0
            for delivery in group:
                footprint += delivery.footprint
                if piece and (len(piece) == most or footprint > BATCH_BYTES):
                    yield piece
                    piece, footprint = [], delivery.footprint
                piece.append(delivery)
            yield piece


def _subject_and_kind(delivery: Claimed) -> tuple[str, bool]:
    return delivery.subject, delivery.footprint > SMALL_BYTES


class PostgresClaims:
    """Claims by state and by the database's clock. Every method raises LedgerUnavailable."""

    def __init__(self, engine: Engine, lease: timedelta) -> None:
        # Each is one statement: BEGIN and COMMIT would be two more round trips.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._in_transactions = engine
        self.lease = lease
        self._marks = LowWaterMarks(lease)

    def survey(self, consumers: Sequence[str]) -> Mapping[str, Backlog]:
        """The backlog of each of these consumers."""
        return survey(self._engine, self._marks, consumers)

    def claim(
        self,
        consumer: str,
        most: int,
        *,
        ordered: bool = False,
        skips_dead_letters: bool = False,
        most_leased: int | None = None,
    ) -> Claim:
        """Lease at most so many due deliveries, the longest due first, and some large ones.

        If ordered only the first of each identity; one that is dead may be skipped. At most
        ``most_leased`` are under lease afterwards, those of other relays included.
        """
        mark = self._marks.known(consumer)
        statement = CLAIM_IN_ORDER if ordered else CLAIM
        parameters = [consumer, most, self.lease, mark.fresh, mark.leased]
        given = [*parameters, skips_dead_letters] if ordered else parameters
        engine = self._engine if most_leased is None else self._in_transactions
        with translate_errors(), engine.begin() as connection:
            cursor = psycopg.RawCursor(driver_of(connection))
            if most_leased is not None:
                cursor.execute(ONE_CLAIM_AT_A_TIME, [consumer])
                leased: int = cursor.execute(LEASED, [consumer]).fetchall()[0][0]
                given[1] = max(min(most, most_leased - leased), 0)
            rows = cursor.execute(statement, given, binary=True).fetchall()
        deliveries = [Claimed(*row[:3]) for row in rows if row[1] is not None]
        return Claim(deliveries, *rows[0][3:])

    def end_lost_leases(self, consumer: str) -> int:
        """End the leases whose messages were lost; returns how many.

        The newest leases stay: their messages may still be on the way to the broker.
        """
        parameters = {
            "consumer": consumer,
            "oldest": self.lease - MOMENT,
            "lease": self.lease,
            "mark": self._marks.known(consumer).leased,
        }
        with translate_errors(), self._engine.begin() as connection:
            return connection.execute(END_LOST, parameters).rowcount

    def release(self, consumer: str, event_ids: Sequence[UUID]) -> None:
        """Make leased deliveries due now, unless they are locked."""
        self._release(RELEASE_UNLOCKED, consumer, event_ids)

    def release_when_unlocked(self, consumer: str, event_ids: Sequence[UUID]) -> None:
        """Make leased deliveries due now, waiting for locks. May raise ConcurrencyConflict."""
        self._release(RELEASE, consumer, event_ids)

    def _release(self, statement: TextClause, consumer: str, event_ids: Sequence[UUID]) -> None:
        parameters = {"consumer": consumer, "event_ids": uuid_array(event_ids)}
        with translate_errors(), self._engine.begin() as connection:
            connection.execute(statement, parameters)
