"""Kratos' answers in a transaction that settles hints."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog
from psycopg.rows import scalar_row
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from kratos_sync.application.consumers.fetch_kratos_identity import FetchKratosIdentity
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import (
    Answer,
    Asked,
    KratosAdmin,
    KratosNotConfigured,
    Outcome,
    Owed,
)
from kratos_sync.application.sync import IdentityLookup
from kratos_sync.domain.events import (
    DomainEvent,
    KratosIdentityGone,
    KratosIdentityHinted,
    KratosIdentityUpdated,
)
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.domain.merging import ReceivedWebhook
from kratos_sync.infrastructure.identities.kratos_identities import SqlAlchemyKratosIdentities
from kratos_sync.infrastructure.identities.recorded_webhooks import AFTER, by_identity
from kratos_sync.infrastructure.ledger.event_rows import record_many
from kratos_sync.infrastructure.postgres.binary_arrays import (
    TIMESTAMPTZ_OID,
    UUID_OID,
    BinaryParameter,
    array,
    time_field,
    uuid_array,
    uuid_field,
)
from kratos_sync.infrastructure.postgres.engine import translate_errors
from kratos_sync.infrastructure.postgres.transaction import Transaction

# In the order of ids: two transactions that tell of the same people cannot deadlock.
NOTE: Final = """
    INSERT INTO kratos_sync.kratos_answers AS answer (identity_id, asked_at)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[])
    ON CONFLICT (identity_id) DO UPDATE
    SET asked_at = greatest(answer.asked_at, excluded.asked_at)
"""

# An answer from the future was asked for before a clock was set back: who knows what is later.
# Of whom we were told to forget we do not want to hear.
ANSWERED: Final = """
    SELECT d.event_id
    FROM kratos_sync.kratos_answers answer
    JOIN kratos_sync.deliveries d ON d.subject = answer.identity_id
    WHERE answer.identity_id = ANY($1::uuid[]) AND answer.asked_at <= clock_timestamp()
      AND d.consumer = $2 AND d.event_id = ANY($3::uuid[]) AND d.owed_at < answer.asked_at
    UNION
    SELECT d.event_id
    FROM kratos_sync.kratos_identities identity
    JOIN kratos_sync.deliveries d ON d.subject = identity.id
    WHERE identity.id = ANY($1::uuid[]) AND identity.forgotten_at IS NOT NULL
      AND d.consumer = $2 AND d.event_id = ANY($3::uuid[])
"""

# Only of whom we hold nothing: of the others it means nothing, and may be long to look for.
FIRST_HEARD: Final = """
    SELECT who.id, (SELECT min(occurred_at) FROM kratos_sync.events
                    WHERE subject = who.id AND name = 'kratos_identity.hinted')
    FROM unnest($1::uuid[]) AS who (id)
    WHERE NOT EXISTS (SELECT FROM kratos_sync.kratos_identities identity WHERE identity.id = who.id)
"""

NOW: Final = "SELECT clock_timestamp()"


def note_parameters(asked_at: Mapping[UUID, datetime]) -> Sequence[BinaryParameter]:
    """The parameters of NOTE; there must be somebody."""
    rows = sorted(asked_at.items())
    return [
        array(UUID_OID, [uuid_field(identity_id) for identity_id, _ in rows]),
        array(TIMESTAMPTZ_OID, [time_field(at) for _, at in rows]),
    ]


log = structlog.get_logger()


class PostgresKratosAnswers:
    """The KratosAnswers port, in one transaction; what is told is recorded when it commits."""

    def __init__(self, transaction: Transaction, kratos: Callable[[], KratosAdmin]) -> None:
        self._transaction = transaction
        self._kratos = kratos
        self._inquiry = IdentityLookup(self._connected, lambda: transaction.subjects, self._now)
        self._answered: set[UUID] | None = None
        self._heard: dict[UUID, datetime | None] | None = None
        self._told: dict[UUID, DomainEvent] = {}
        self._collected: set[UUID] = set()
        self._told_before = self._told
        transaction.join(self)

    def is_answered(self, hint: KratosIdentityHinted) -> bool:
        """Look once for all hints of the transaction."""
        if self._answered is None:
            ids = uuid_array(self._transaction.subjects), uuid_array(self._transaction.event_ids)
            rows = self._transaction.fetch(ANSWERED, (ids[0], FetchKratosIdentity.name, ids[1]))
            self._answered = {event_id for (event_id,) in rows}
        return hint.id in self._answered

    def ask(self, identity_id: UUID) -> Answer:
        """Ask about everybody first, and alone about who is not shown."""
        return self._inquiry.answer(identity_id)

    def tell(self, identity_id: UUID, answer: Answer) -> None:
        """Raise the event, with an id of its own: a hint that is replayed brings another answer."""
        if identity_id in self._told:
            return
        self._told[identity_id] = (
            KratosIdentityGone(uuid7(), answer.asked_at, identity_id)
            if answer.identity is None
            else KratosIdentityUpdated(
                uuid7(), answer.asked_at, answer.identity, self._heard_at(identity_id)
            )
        )

    def flush(self) -> None:
        """Note when was asked about whom."""
        if self._told:
            asked_at = {each: event.date_occurred for each, event in self._told.items()}
            self._transaction.run(NOTE, note_parameters(asked_at))

    def collect_events(self) -> list[DomainEvent]:
        """Take what was told since the last call."""
        raised = [event for event in self._told.values() if event.id not in self._collected]
        self._collected.update(event.id for event in raised)
        return raised

    def savepoint(self) -> None:
        """Remember what was told."""
        self._told_before = self._told.copy()

    def roll_back_to_savepoint(self) -> None:
        """Untell what was told since."""
        self._told = self._told_before

    def _heard_at(self, identity_id: UUID) -> datetime | None:
        if self._heard is None:
            subjects = uuid_array(self._transaction.subjects)
            self._heard = dict(self._transaction.fetch(FIRST_HEARD, [subjects]))
        return self._heard.get(identity_id)

    def _connected(self) -> KratosAdmin:
        try:
            return self._kratos()
        except KratosNotConfigured:
            log.warning("hints_wait", reason="this worker has no KRATOS_ADMIN_URL")
            raise

    def _now(self) -> datetime:
        ((now,),) = self._transaction.fetch(NOW, ())
        moment: datetime = now
        return moment


SOURCE: Final = "sync"
_NOBODY: Final = UUID(int=0)
TIME_LIMIT: Final = timedelta(seconds=20)
HEARD_OF: Final = """
    SELECT id FROM unnest($1::uuid[]) AS asked (id)
    WHERE EXISTS (SELECT FROM kratos_sync.events WHERE subject = asked.id)
"""
OWED: Final = text("""
    SELECT count(*) FILTER (WHERE failed_at IS NULL), count(*) FILTER (WHERE failed_at IS NOT NULL)
    FROM kratos_sync.deliveries WHERE event_id = ANY(CAST(:event_ids AS uuid[]))
""")


class PostgresAskedIdentities:
    """The port of that name. It locks the copies it compares with, and never changes one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        """Ask the database for the time."""
        with translate_errors(), self._engine.connect() as connection:
            now: datetime = connection.execute(text(NOW)).scalar_one()
            return now

    def record(self, answers: Mapping[UUID, Answer]) -> Sequence[Asked]:
        """Compare with the copies, and record in the same transaction."""
        transaction = Transaction(self._engine)
        with transaction.begin(TIME_LIMIT):
            transaction.subjects = tuple(answers)
            copies = SqlAlchemyKratosIdentities(transaction)
            heard_of = {row[0] for row in transaction.fetch(HEARD_OF, [uuid_array(answers)])}
            heard_at: dict[UUID, datetime | None] = dict(
                transaction.fetch(FIRST_HEARD, [uuid_array(answers)])
            )
            ((now,),) = transaction.fetch(NOW, ())
            asked: list[Asked] = []
            events: list[DomainEvent] = []
            for identity_id, answer in answers.items():
                event = _event(identity_id, answer, heard_at.get(identity_id))
                held = copies.find(identity_id)
                parameters = [uuid_array([identity_id]), answer.asked_at]
                later = by_identity(transaction.fetch(AFTER, parameters)).get(identity_id, ())
                outcome = _outcome(held, answer, later, now, heard_of=identity_id in heard_of)
                is_news = _is_news(held, outcome)
                asked.append(Asked(identity_id, outcome, event.id if is_news else None))
                if is_news:
                    events.append(event)
            record_many(transaction.connection, [(each, Provenance(SOURCE)) for each in events])
            asked_at = {each.subject: each.date_occurred for each in events}
            if asked_at:
                transaction.run(NOTE, note_parameters(asked_at))
            transaction.commit()
        return asked

    def owed(self, event_ids: Sequence[UUID]) -> Owed:
        """Count by the deliveries' key."""
        with translate_errors(), self._engine.connect() as connection:
            parameters = {"event_ids": uuid_array(event_ids)}
            return Owed(*connection.execute(OWED, parameters).one())


def _event(
    identity_id: UUID, answer: Answer, heard_at: datetime | None
) -> KratosIdentityUpdated | KratosIdentityGone:
    if answer.identity is None:
        return KratosIdentityGone(uuid7(), answer.asked_at, identity_id)
    return KratosIdentityUpdated(uuid7(), answer.asked_at, answer.identity, heard_at)


def _outcome(
    held: KratosIdentity | None,
    answer: Answer,
    later: Sequence[ReceivedWebhook],
    now: datetime,
    *,
    heard_of: bool,
) -> Outcome:
    if held is not None and held.forgotten_at is not None:
        return Outcome.FORGOTTEN
    if answer.identity is None:
        return Outcome.GONE if held or heard_of else Outcome.UNKNOWN
    if held is None:
        return Outcome.UPDATED
    # A copy of the copy decides: a version is what consumers of the facts see.
    twin = copy(held)
    twin.ignore_answers_after(now)
    twin.update(answer.identity, at=answer.asked_at, cause=_NOBODY, later=later)
    return Outcome.SAME if twin.version == held.version else Outcome.UPDATED


def _is_news(held: KratosIdentity | None, outcome: Outcome) -> bool:
    match outcome:
        case Outcome.UPDATED | Outcome.SAME:
            return True  # whatever is still owed of other news, this is the last word
        case Outcome.GONE:
            return held is None or held.deleted_at is None
        case _:
            return False


HINT: Final = "SELECT kratos_sync.identity_changed(CAST({} AS uuid))"
_BY_NAME: Final = text(HINT.format(":identity_id"))


def identity_changed(
    connection: Connection | Session | psycopg.Connection[Any], identity_id: UUID
) -> UUID:
    """Have Kratos asked what the identity is now, if the connection's transaction commits.

    Call it after the change in Kratos, in the transaction that holds what the application itself
    writes of it. A deletion is a change too. Gives the id of the event. Raises the driver's error
    for an id of all zeros, and for a role that may not execute `kratos_sync.identity_changed`.
    """
    if isinstance(connection, psycopg.Connection):
        with connection.cursor(row_factory=scalar_row) as cursor:
            row = cursor.execute(HINT.format("%s"), [str(identity_id)]).fetchone()
    else:
        row = connection.execute(_BY_NAME, {"identity_id": str(identity_id)}).scalar_one()
    return UUID(str(row))
