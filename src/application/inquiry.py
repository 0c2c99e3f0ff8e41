"""Asking Kratos about a few people with as few requests as will do."""

from collections.abc import Callable, Collection
from datetime import datetime
from uuid import UUID

from application.ports.kratos import (
    KratosAdmin,
    KratosError,
    KratosNotConfigured,
    KratosRefused,
    KratosUnavailable,
)
from application.ports.kratos_answers import Answer


class Inquiry:
    """Asks about all at once, and alone about each that is not shown there.

    Only the latter tells that somebody is gone. Once Kratos is away it is not asked again.
    """

    def __init__(
        self,
        kratos: Callable[[], KratosAdmin],
        everybody: Callable[[], Collection[UUID]],
        now: Callable[[], datetime],
    ) -> None:
        """`everybody` gives up to 500 ids when the first question comes; `now` is the ledger's.

        `kratos` may raise KratosNotConfigured.
        """
        self._kratos = kratos
        self._everybody = everybody
        self._now = now
        self._answers: dict[UUID, Answer] = {}
        self._asked_about_all = False
        self._problem: KratosError | None = None

    def answer(self, identity_id: UUID) -> Answer:
        """Give the answer about one, the same each time; raises KratosError."""
        if not self._asked_about_all:
            self._asked_about_all = True
            self._ask_about({identity_id, *self._everybody()})
        if identity_id not in self._answers:
            self._answers[identity_id] = self._ask(identity_id)
        return self._answers[identity_id]

    def _ask_about(self, ids: Collection[UUID]) -> None:
        if len(ids) == 1:
            return  # then the question that tells of a deletion too costs no more
        try:
            kratos, asked_at = self._kratos(), self._now()
            found = kratos.find_all(sorted(ids))
        except KratosRefused:
            return  # one of them may be to blame: each is asked for alone
        except (KratosUnavailable, KratosNotConfigured) as error:
            self._problem = error
            return
        for identity_id, identity in found.items():
            self._answers[identity_id] = Answer(asked_at, identity)

    def _ask(self, identity_id: UUID) -> Answer:
        if self._problem is not None:
            raise self._problem.with_traceback(None)
        try:
            kratos, asked_at = self._kratos(), self._now()
            return Answer(asked_at, kratos.find(identity_id))
        except (KratosUnavailable, KratosNotConfigured) as error:
            self._problem = error
            raise
