"""Recording answers of the Admin API: for hints that are consumed, and for a person who asks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import psycopg
import structlog
from psycopg.rows import scalar_row
from sqlalchemy import Connection, Engine, text
from uuid_utils.compat import uuid7

from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import (
    Answer,
    HeldElsewhere,
    KratosAdmin,
    KratosNotConfigured,
    PendingCount,
    SyncResult,
)
from kratos_sync.application.sync import CurrentState, IdentityLookup, decide
from kratos_sync.domain.events import (
    DomainEvent,
    KratosIdentityHinted,
)
from kratos_sync.domain.id_range import ALL_IDS, IdRange
from kratos_sync.infrastructure.identities.kratos_identities import PostgresKratosIdentities
from kratos_sync.infrastructure.identities.recorded_webhooks import NOW, later_webhooks
from kratos_sync.infrastructure.ledger.recording import RECORD_ANSWERS, record_many
from kratos_sync.infrastructure.postgres.binary_arrays import (
    TIMESTAMPTZ_OID,
    UUID_OID,
    array,
    time_field,
    uuid_array,
    uuid_field,
)
from kratos_sync.infrastructure.postgres.engine import readable, translate_errors
from kratos_sync.infrastructure.postgres.transaction import Transaction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

SOURCE: Final = "sync"
TIME_LIMIT: Final = timedelta(seconds=20)

NOTE: Final = """
    INSERT INTO kratos_sync.kratos_answers AS answer (identity_id, asked_at)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[])
    ON CONFLICT (identity_id) DO UPDATE
    SET asked_at = greatest(excluded.asked_at,
                            CASE WHEN answer.asked_at <= clock_timestamp() THEN answer.asked_at END)
"""
# An answer from the future was asked for before a clock was set back, and counts for nothing.
# Hints about erased identities need no answer.
ANSWERED: Final = """
    WITH hint AS MATERIALIZED (
        SELECT event_id, subject, owed_at FROM kratos_sync.deliveries
        WHERE consumer = $2 AND event_id = ANY($3::uuid[]) AND subject = ANY($1::uuid[])
    )
    SELECT event_id FROM hint
    WHERE EXISTS (SELECT FROM kratos_sync.kratos_answers answer
                  WHERE answer.identity_id = hint.subject AND answer.asked_at > hint.owed_at
                    AND answer.asked_at <= clock_timestamp() OFFSET 0)
       OR EXISTS (SELECT FROM kratos_sync.kratos_identities identity
                  WHERE identity.id = hint.subject AND identity.forgotten_at IS NOT NULL OFFSET 0)
"""
# Only of identities not held here: of the others it is not needed, and may take long to find.
FIRST_HINTED: Final = f"""
    SELECT who.id, (SELECT {readable("min(occurred_at)")} FROM kratos_sync.events
                    WHERE subject = who.id AND name = 'kratos_identity.hinted')
    FROM unnest($1::uuid[]) AS who (id)
    WHERE NOT EXISTS (SELECT FROM kratos_sync.kratos_identities identity WHERE identity.id = who.id)
"""  # noqa: S608  # all of it is ours
KNOWN: Final = """
    SELECT id FROM unnest($1::uuid[]) AS asked (id)
    WHERE EXISTS (SELECT FROM kratos_sync.events WHERE subject = asked.id)
"""
PENDING: Final = text("""
    SELECT count(*) FILTER (WHERE failed_at IS NULL), count(*) FILTER (WHERE failed_at IS NOT NULL)
    FROM kratos_sync.deliveries WHERE event_id = ANY(CAST(:event_ids AS uuid[]))
""")
HINT: Final = "SELECT kratos_sync.identity_changed(CAST({} AS uuid))"
TRACEPARENT: Final = "SELECT set_config('kratos_sync.traceparent', {}, true)"
_BY_NAME: Final = text(HINT.format(":identity_id"))
_TRACEPARENT_BY_NAME: Final = text(TRACEPARENT.format(":traceparent"))

log = structlog.get_logger()


class PostgresKratosAnswers:
    """The KratosAnswers port, in one transaction; answers are recorded when it commits."""

    def __init__(
        self,
        transaction: Transaction,
        kratos: Callable[[], KratosAdmin],
        ids: IdRange = ALL_IDS,
    ) -> None:
        self._transaction = transaction
        self._ids = ids
        self._kratos = kratos
        self._lookup = IdentityLookup(
            self._connected, lambda: transaction.subjects, lambda: _now(transaction)
        )
        self._answered: set[UUID] | None = None
        self._first_hinted: Mapping[UUID, datetime] | None = None
        self._recorded: dict[UUID, DomainEvent] = {}
        self._collected: set[UUID] = set()
        self._facts: list[DomainEvent] = []
        self._savepoint = self._recorded
        self._facts_before = 0
        transaction.join(self)

    def is_answered(self, hint: KratosIdentityHinted) -> bool:
        """Look once for all hints of the transaction."""
        if self._answered is None:
            transaction = self._transaction
            subjects, events = uuid_array(transaction.subjects), uuid_array(transaction.event_ids)
            parameters = [subjects, FetchKratosIdentity.name, events]
            self._answered = {row[0] for row in transaction.fetch(ANSWERED, parameters)}
        return hint.id in self._answered

    def ask(self, identity_id: UUID) -> Answer:
        """Ask about all in one request, and alone about those not found there."""
        if identity_id not in self._ids:
            raise HeldElsewhere(self._ids)
        return self._lookup.answer(identity_id)

    def record(self, identity_id: UUID, answer: Answer) -> None:
        if identity_id in self._recorded:
            return
        if self._first_hinted is None:
            self._first_hinted = _first_hinted(self._transaction, self._transaction.subjects)
        first_hinted_at = self._first_hinted.get(identity_id)
        self._recorded[identity_id] = answer.event(uuid7(), identity_id, first_hinted_at)

    def observe(self, fact: DomainEvent | None) -> None:
        if fact is not None:
            self._facts.append(fact)

    def flush(self) -> None:
        """Record when Kratos was asked about which identity."""
        _note(self._transaction, self._recorded.values())

    def collect_events(self) -> list[DomainEvent]:
        raised = [each for each in self._recorded.values() if each.id not in self._collected]
        self._collected.update(event.id for event in raised)
        facts, self._facts = self._facts, []
        return [*raised, *facts]

    def savepoint(self) -> None:
        self._savepoint, self._facts_before = self._recorded.copy(), len(self._facts)

    def roll_back_to_savepoint(self) -> None:
        self._recorded = self._savepoint
        del self._facts[self._facts_before :]

    def _connected(self) -> KratosAdmin:
        try:
            return self._kratos()
        except KratosNotConfigured:
            log.warning("hints_wait", reason="this worker has no KRATOS_ADMIN_URL")
            raise


class PostgresSyncedIdentities:
    """The SyncedIdentities port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        with translate_errors(), self._engine.connect() as connection:
            now: datetime = connection.execute(text(NOW)).scalar_one()
            return now

    def record(self, answers: Mapping[UUID, Answer]) -> Sequence[SyncResult]:
        """Lock the copies, and never change one."""
        transaction = Transaction(self._engine)
        with transaction.begin(TIME_LIMIT):
            ids = transaction.subjects = tuple(answers)
            copies = PostgresKratosIdentities(transaction)
            known = {row[0] for row in transaction.fetch(KNOWN, [uuid_array(ids)])}
            first_hinted, now = _first_hinted(transaction, ids), _now(transaction)
            results, events = [], []
            for each, answer in answers.items():
                held = copies.find(each)  # locks it: what is read later is complete
                later = later_webhooks(transaction.fetch, [each], answer.asked_at).of(each)
                state = CurrentState(held, each in known, first_hinted.get(each), later)
                result, event = decide(each, answer, state, now, uuid7())
                results.append(result)
                if event is not None:
                    events.append(event)
            recorded = [(event, Provenance(SOURCE)) for event in events]
            record_many(transaction.connection, recorded, RECORD_ANSWERS)
            _note(transaction, events)
            transaction.commit()
        return results

    def count_pending(self, event_ids: Sequence[UUID]) -> PendingCount:
        with translate_errors(), self._engine.connect() as connection:
            parameters = {"event_ids": uuid_array(event_ids)}
            return PendingCount(*connection.execute(PENDING, parameters).one())


def identity_changed(
    connection: "Connection | Session | psycopg.Connection[Any]",
    identity_id: UUID,
    traceparent: str | None = None,
) -> UUID:
    """Have Kratos asked what the identity is now, if the connection's transaction commits.

    Call it after the change in Kratos, in the transaction that holds what the application itself
    writes of it. A deletion is a change too. ``traceparent``, a W3C Trace Context header, is kept
    with this event and those that the transaction records after it. Gives the id of the event.
    Raises the driver's error for an id of all zeros, and for a role that may not execute
    `kratos_sync.identity_changed`.
    """
    if isinstance(connection, psycopg.Connection):
        with connection.cursor(row_factory=scalar_row) as cursor:
            if traceparent is not None:
                cursor.execute(TRACEPARENT.format("%s"), [traceparent])
            row = cursor.execute(HINT.format("%s"), [str(identity_id)]).fetchone()
    else:
        if traceparent is not None:
            connection.execute(_TRACEPARENT_BY_NAME, {"traceparent": traceparent})
        row = connection.execute(_BY_NAME, {"identity_id": str(identity_id)}).scalar_one()
    return UUID(str(row))


def _now(transaction: Transaction) -> datetime:
    ((now,),) = transaction.fetch(NOW, ())
    moment: datetime = now
    return moment


def _first_hinted(transaction: Transaction, ids: Sequence[UUID]) -> Mapping[UUID, datetime]:
    return dict(transaction.fetch(FIRST_HINTED, [uuid_array(ids)]))


def _note(transaction: Transaction, events: Iterable[DomainEvent]) -> None:
    # In the order of ids: two transactions about the same identities cannot deadlock.
    rows = sorted((event.subject, event.date_occurred) for event in events)
    if rows:
        ids = array(UUID_OID, [uuid_field(identity_id) for identity_id, _ in rows])
        times = array(TIMESTAMPTZ_OID, [time_field(at) for _, at in rows])
        transaction.run(NOTE, [ids, times])
