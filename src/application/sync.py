"""Asking Kratos about some identities at once, because a person says so."""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from kratos_sync.application.ports.kratos import (
    Answer,
    Asked,
    AskedIdentities,
    KratosAdmin,
    KratosError,
    KratosNotConfigured,
    KratosRefused,
    KratosUnavailable,
    Outcome,
)


class IdentityLookup:
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


ASKED_AT_ONCE: Final = 50


class SyncIdentities:
    """Asks, and records what Kratos says; `wake_relay` is called after each commit."""

    def __init__(
        self, kratos: KratosAdmin, identities: AskedIdentities, wake_relay: Callable[[], None]
    ) -> None:
        self._kratos = kratos
        self._identities = identities
        self._wake_relay = wake_relay

    def run(self, ids: Sequence[UUID]) -> Iterator[Asked]:
        """Give what came of each, in their order.

        Raises KratosUnavailable, after what was answered until then has been recorded and given;
        LedgerUnavailable or ConcurrencyConflict.
        """
        for start in range(0, len(ids), ASKED_AT_ONCE):
            yield from self._ask(ids[start : start + ASKED_AT_ONCE])

    def _ask(self, ids: Sequence[UUID]) -> Iterator[Asked]:
        inquiry = IdentityLookup(lambda: self._kratos, lambda: ids, self._identities.now)
        answers: dict[UUID, Answer] = {}
        asked: dict[UUID, Asked] = {}
        away: KratosUnavailable | None = None
        for identity_id in ids:
            try:
                answers[identity_id] = inquiry.answer(identity_id)
            except KratosRefused as error:
                asked[identity_id] = Asked(identity_id, Outcome.REFUSED, problem=error.problem)
            except KratosUnavailable as error:
                away = error
        if answers:
            asked |= {each.identity_id: each for each in self._identities.record(answers)}
            self._wake_relay()
        yield from (asked[identity_id] for identity_id in ids if identity_id in asked)
        if away is not None:
            raise away
