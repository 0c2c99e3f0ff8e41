"""Erasures in PostgreSQL: functions of the schema erase a few thousand rows at a time."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine, text
from uuid_utils.compat import uuid7

from kratos_sync.application.operations import RunningOperation, recorded
from kratos_sync.application.ports.deletions import Erasable, Erased, Erasure, Erasures
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.operations import How, OperationRequest, Operations, Outcome
from kratos_sync.domain.events import IMPERSONAL
from kratos_sync.domain.kratos_identities import find_or_add
from kratos_sync.infrastructure.identities.kratos_identities import PostgresKratosIdentities
from kratos_sync.infrastructure.ledger.purge import BY_RELAY, lock_purges
from kratos_sync.infrastructure.ledger.recording import RECORD_ERASURES, record_many
from kratos_sync.infrastructure.ledger.snapshot import snapshot
from kratos_sync.infrastructure.postgres.binary_arrays import uuid_array
from kratos_sync.infrastructure.postgres.engine import translate_errors
from kratos_sync.infrastructure.postgres.json import storable
from kratos_sync.infrastructure.postgres.transaction import Transaction
from kratos_sync.infrastructure.schedule import Schedule

SOURCE: Final = "erase"
MOST_EVENTS: Final = 2_000
"""Events of one step, which takes some hundredths of a second."""
TIME_LIMIT: Final = timedelta(seconds=20)
FIRST: Final = UUID(int=0)
IMPERSONAL_NAMES: Final = sorted(IMPERSONAL)

ERASABLE: Final = text("""
    WITH recorded AS MATERIALIZED (
        SELECT id, name, erased_at FROM kratos_sync.events WHERE subject = :identity_id
    ), personal AS MATERIALIZED (
        SELECT id FROM recorded WHERE erased_at IS NULL AND name <> ALL(:impersonal)
    )
    SELECT (SELECT count(*) FROM kratos_sync.kratos_identities
            WHERE id = :identity_id AND deleted_at IS NULL),
           (SELECT count(*) FROM personal),
           (SELECT count(*) FROM personal CROSS JOIN LATERAL (
                SELECT FROM kratos_sync.deliveries WHERE event_id = personal.id OFFSET 0) d),
           (SELECT count(*) FROM recorded CROSS JOIN LATERAL (
                SELECT FROM kratos_sync.attempts
                WHERE event_id = recorded.id AND outcome IN ('failed', 'gave_up', 'postponed')
                OFFSET 0) a
            WHERE recorded.erased_at IS NULL),
           EXISTS (SELECT FROM recorded)
           OR EXISTS (SELECT FROM kratos_sync.kratos_identities WHERE id = :identity_id)
""")
# Purges and replays are excluded meanwhile, so that no step misses what another has seen.
ERASE_EVENTS: Final = text("""
    SELECT last, erased, settled, held, texts
    FROM kratos_sync.erase_events(CAST(:people AS uuid[]), :impersonal, :after, :most)
""")
ERASE_TEXTS: Final = text("""
    SELECT texts, held FROM kratos_sync.erase_texts(CAST(:people AS uuid[]), :impersonal)
""")

# The next look is after as long as the erasure is old, within bounds; incomplete ones are repeated
# soon.
NOTE: Final = text("""
    UPDATE kratos_sync.erasures
    SET erased_at = CASE WHEN :complete THEN coalesce(erased_at, clock_timestamp())
                         ELSE erased_at END,
        look_at = clock_timestamp() + CASE WHEN :complete
            THEN least(greatest(clock_timestamp() - asked_at, :soon), :longest) ELSE :soon END
    WHERE identity_id = ANY(CAST(:people AS uuid[]))
""")
# What is due later than the longest wait was written by a clock that was ahead.
DUE: Final = text("""
    UPDATE kratos_sync.erasures SET look_at = clock_timestamp() + :soon
    WHERE identity_id IN (
        SELECT identity_id FROM kratos_sync.erasures
        WHERE NOT look_at BETWEEN clock_timestamp() AND clock_timestamp() + :longest
        ORDER BY look_at LIMIT :most FOR UPDATE SKIP LOCKED)
    RETURNING identity_id
""")
SOON: Final = timedelta(minutes=1)
LONGEST: Final = timedelta(hours=1)
# A repeated request is looked at again, and keeps who requested it first and why.
REQUEST: Final = """
    INSERT INTO kratos_sync.erasures (identity_id, by, reason) VALUES ($1, $2, $3)
    ON CONFLICT (identity_id) DO UPDATE SET look_at = clock_timestamp()
"""
ERASURE: Final = text("""
    SELECT asked_at, erased_at, by, reason FROM kratos_sync.erasures
    WHERE identity_id = :identity_id
""")

LOOK_SECONDS: Final = 20.0
MOST_AT_ONCE: Final = 100
"""Identities that are erased together."""
PAUSE_SECONDS: Final = 0.05

log = structlog.get_logger()


def request_erasure(transaction: Transaction, identity_id: UUID, by: str, reason: str) -> None:
    """Have a relay erase what is recorded of the identity, after this transaction's commit."""
    transaction.run(REQUEST, (identity_id, storable(by), storable(reason)))


def erasure_of(connection: Connection, identity_id: UUID) -> Erasure | None:
    """The erasure of an identity, if there is one."""
    row = connection.execute(ERASURE, {"identity_id": identity_id}).one_or_none()
    return None if row is None else Erasure(*row)


class PostgresErasures:
    """The Erasures port."""

    def __init__(self, engine: Engine, most_events: int = MOST_EVENTS) -> None:
        self._engine = engine
        self._most_events = most_events

    def erasable(self, identity_id: UUID) -> Erasable:
        parameters = {"identity_id": identity_id, "impersonal": IMPERSONAL_NAMES}
        with snapshot(self._engine) as connection:
            row = connection.execute(ERASABLE, parameters).one()
            erasure = erasure_of(connection, identity_id)
        copies, events, deliveries, attempts, is_known = row
        return Erasable(copies, events, deliveries, attempts, is_known, erasure)

    def begin(self, identity_id: UUID, by: str, reason: str) -> None:
        """Lock the copy, erase it, and record the events of that, in one transaction."""
        transaction = Transaction(self._engine)
        with transaction.begin(TIME_LIMIT):
            identities = PostgresKratosIdentities(transaction)
            now = datetime.now(UTC)
            find_or_add(identities, identity_id, at=now).erase(at=now, cause=uuid7())
            request_erasure(transaction, identity_id, by, reason)
            raised = [(event, Provenance(SOURCE)) for event in transaction.collect_events()]
            record_many(transaction.connection, raised, RECORD_ERASURES)
            transaction.commit()

    def erase(self, ids: Sequence[UUID]) -> Iterator[Erased]:
        """Erase events in the order of ids, each step in a transaction, then texts of errors."""
        fixed = {"people": uuid_array(ids), "impersonal": IMPERSONAL_NAMES}
        after: UUID | None = FIRST
        while after is not None:
            step = {**fixed, "after": after, "most": self._most_events}
            with self._step() as connection:
                after, erased, settled, held, texts = connection.execute(ERASE_EVENTS, step).one()
            if after is not None:
                yield Erased(erased, settled, texts, held)
        with self._step() as connection:
            texts, held = connection.execute(ERASE_TEXTS, fixed).one()
        yield Erased(texts=texts, held=held)

    def note(self, ids: Sequence[UUID], *, is_complete: bool) -> None:
        parameters = {"people": uuid_array(ids), "complete": is_complete}
        with translate_errors(), self._engine.begin() as connection:
            connection.execute(NOTE, {**parameters, "soon": SOON, "longest": LONGEST})

    def due(self, most: int) -> Sequence[UUID]:
        with translate_errors(), self._engine.begin() as connection:
            return list(
                connection.execute(DUE, {"most": most, "soon": SOON, "longest": LONGEST}).scalars()
            )

    @contextmanager
    def _step(self) -> Iterator[Connection]:
        with translate_errors(), self._engine.begin() as connection:
            lock_purges(connection)
            yield connection


class ErasureSchedule(Schedule):
    """Completes erasures that are due; each process gets others.

    What it erases is recorded as an operation.
    """

    abandoned = "erasure_abandoned"

    def __init__(
        self, erasures: Erasures, operations: Operations, look_seconds: float = LOOK_SECONDS
    ) -> None:
        super().__init__(look_seconds)
        self._erasures = erasures
        self._operations = operations

    def run_once(self, stopped: threading.Event) -> None:
        while ids := self._erasures.due(MOST_AT_ONCE):
            request = OperationRequest(
                "erase",
                BY_RELAY,
                How.SCHEDULE,
                subject=ids[0] if len(ids) == 1 else None,
                scope={"identities": len(ids)},
            )
            with recorded(self._operations, request, lazily=True) as operation:
                if not self._erase(ids, operation, stopped):
                    operation.ends_as = Outcome.INTERRUPTED
                    return
            if stopped.wait(PAUSE_SECONDS):
                return

    def _erase(
        self, ids: Sequence[UUID], operation: RunningOperation, stopped: threading.Event
    ) -> bool:
        """Erase, and record what was erased, if anything; False if it was stopped."""
        erased, held = Erased(), 0
        for step in self._erasures.erase(ids):
            erased, held = erased.plus(step), held + step.held
            if step._replace(held=0) != Erased():
                operation.advance(erased.events, deliveries=erased.deliveries, texts=erased.texts)
            if stopped.wait(PAUSE_SECONDS):
                return False
        self._erasures.note(ids, is_complete=not held)
        if erased._replace(held=held) != Erased():
            log.info(
                "erased",
                people=len(ids),
                events=erased.events,
                deliveries=erased.deliveries,
                held=held,
            )
        return True
