"""What a person had Kratos asked about, in the ledger."""

from collections.abc import Mapping, Sequence
from copy import copy
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Engine, text
from uuid_utils.compat import uuid7

from application.ports.asked_identities import Asked, Outcome, Owed
from application.ports.event_bus import Provenance
from application.ports.kratos_answers import Answer
from domain.events import DomainEvent, KratosIdentityGone, KratosIdentityUpdated
from domain.kratos_identity import KratosIdentity
from domain.recorded_webhooks import ReceivedWebhook
from infrastructure.binary_arrays import uuid_array
from infrastructure.database import errors_in_our_words
from infrastructure.identities.kratos_identities import SqlAlchemyKratosIdentities
from infrastructure.identities.recorded_webhooks import AFTER, by_identity
from infrastructure.kratos_answers.asked import FIRST_HEARD, NOTE, NOW, note_parameters
from infrastructure.ledger.record import record_many
from infrastructure.transaction import Transaction

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
        with errors_in_our_words(), self._engine.connect() as connection:
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
        with errors_in_our_words(), self._engine.connect() as connection:
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
    twin.distrust_answers_after(now)
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
