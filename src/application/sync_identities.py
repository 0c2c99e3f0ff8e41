"""Asking Kratos about some identities at once, because a person says so."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final
from uuid import UUID

from application.inquiry import Inquiry
from application.ports.asked_identities import Asked, AskedIdentities, Outcome
from application.ports.kratos import KratosAdmin, KratosRefused, KratosUnavailable
from application.ports.kratos_answers import Answer

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
        inquiry = Inquiry(lambda: self._kratos, lambda: ids, self._identities.now)
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
