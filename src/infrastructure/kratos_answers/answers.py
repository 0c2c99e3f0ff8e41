"""Kratos' answers in a transaction that settles hints."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import structlog
from uuid_utils.compat import uuid7

from application.consumers.fetch_kratos_identity import FetchKratosIdentity
from application.inquiry import Inquiry
from application.ports.kratos import KratosAdmin, KratosNotConfigured
from application.ports.kratos_answers import Answer
from domain.events import (
    DomainEvent,
    KratosIdentityGone,
    KratosIdentityHinted,
    KratosIdentityUpdated,
)
from infrastructure.binary_arrays import uuid_array
from infrastructure.kratos_answers.asked import (
    ANSWERED,
    FIRST_HEARD,
    NOTE,
    NOW,
    note_parameters,
)
from infrastructure.transaction import Transaction

log = structlog.get_logger()


class PostgresKratosAnswers:
    """The KratosAnswers port, in one transaction; what is told is recorded when it commits."""

    def __init__(self, transaction: Transaction, kratos: Callable[[], KratosAdmin]) -> None:
        self._transaction = transaction
        self._kratos = kratos
        self._inquiry = Inquiry(self._connected, lambda: transaction.subjects, self._now)
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

    def checkpoint(self) -> None:
        """Remember what was told."""
        self._told_before = self._told.copy()

    def take_back(self) -> None:
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
