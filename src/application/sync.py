"""Asking Kratos about some identities, and recording the answers."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from datetime import datetime
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from kratos_sync.application.ports.kratos import (
    Answer,
    HeldElsewhere,
    KratosAdmin,
    KratosError,
    KratosNotConfigured,
    KratosRefused,
    KratosUnavailable,
    SyncedIdentities,
    SyncOutcome,
    SyncResult,
)
from kratos_sync.domain.events import KratosIdentityGone, KratosIdentityUpdated
from kratos_sync.domain.id_range import ALL_IDS, IdRange
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.domain.merging import ReceivedWebhook

ASKED_AT_ONCE: Final = 50
_NO_CAUSE: Final = UUID(int=0)

Found = TypeVar("Found")


class IdentityLookup:
    """Asks about all identities in one request, and alone about each that is not found there.

    Only the latter proves a deletion. Once Kratos is unavailable it is not asked again.
    """

    def __init__(
        self,
        kratos: Callable[[], KratosAdmin],
        all_ids: Callable[[], Collection[UUID]],
        now: Callable[[], datetime],
    ) -> None:
        """`all_ids` gives up to 500 ids when the first question comes; `now` is the ledger's.

        `kratos` may raise KratosNotConfigured.
        """
        self._kratos = kratos
        self._all_ids = all_ids
        self._now = now
        self._answers: dict[UUID, Answer] = {}
        self._has_asked_all = False
        self._problem: KratosError | None = None

    def answer(self, identity_id: UUID) -> Answer:
        """Give the answer about one, the same each time; raises KratosError."""
        if not self._has_asked_all:
            self._has_asked_all = True
            self._ask_all({identity_id, *self._all_ids()})
        if identity_id not in self._answers:
            asked_at, identity = self._ask(lambda kratos: kratos.find(identity_id))
            self._answers[identity_id] = Answer(asked_at, identity)
        return self._answers[identity_id]

    def _ask_all(self, ids: Collection[UUID]) -> None:
        if len(ids) == 1:
            return  # `find` costs the same, and can prove a deletion
        # Refused, as one of them may be the reason: each is asked for alone.
        with suppress(KratosError):
            asked_at, found = self._ask(lambda kratos: kratos.find_all(sorted(ids)))
            for identity_id, identity in found.items():
                self._answers[identity_id] = Answer(asked_at, identity)

    def _ask(self, question: Callable[[KratosAdmin], Found]) -> tuple[datetime, Found]:
        if self._problem is not None:
            raise self._problem.with_traceback(None)
        try:
            kratos, asked_at = self._kratos(), self._now()
            return asked_at, question(kratos)
        except (KratosUnavailable, KratosNotConfigured) as error:
            self._problem = error
            raise


class SyncIdentities:
    """Asks Kratos, and records its answers; `wake_relay` is called after each commit.

    It does not ask about identities of other ids than ``held``.
    """

    def __init__(
        self,
        kratos: KratosAdmin,
        identities: SyncedIdentities,
        wake_relay: Callable[[], None],
        held: IdRange = ALL_IDS,
    ) -> None:
        self._kratos = kratos
        self._identities = identities
        self._wake_relay = wake_relay
        self._held = held

    def run(self, ids: Sequence[UUID]) -> Iterator[SyncResult]:
        """Give a result for each, in their order.

        Raises KratosUnavailable, after the answers until then were recorded and given;
        LedgerUnavailable or ConcurrencyConflict.
        """
        for start in range(0, len(ids), ASKED_AT_ONCE):
            yield from self._sync(ids[start : start + ASKED_AT_ONCE])

    def _sync(self, ids: Sequence[UUID]) -> Iterator[SyncResult]:
        held = [each for each in ids if each in self._held]
        lookup = IdentityLookup(lambda: self._kratos, lambda: held, self._identities.now)
        answers: dict[UUID, Answer] = {}
        elsewhere = str(HeldElsewhere(self._held))
        results = {
            each: SyncResult(each, SyncOutcome.REFUSED, problem=elsewhere)
            for each in ids
            if each not in self._held
        }
        unavailable: KratosUnavailable | None = None
        for each in held:
            try:
                answers[each] = lookup.answer(each)
            except KratosRefused as error:
                results[each] = SyncResult(each, SyncOutcome.REFUSED, problem=error.problem)
            except KratosUnavailable as error:
                unavailable = error
        if answers:
            results |= {each.identity_id: each for each in self._identities.record(answers)}
            self._wake_relay()
        yield from (results[each] for each in ids if each in results)
        if unavailable is not None:
            raise unavailable


class CurrentState(NamedTuple):
    """What is held of an identity, locked until the transaction ends.

    ``is_known`` says whether any event was recorded about it; ``first_hinted_at`` is when it was
    first hinted at, if it is not held. ``later`` are the webhooks recorded since the question.
    """

    held: KratosIdentity | None
    is_known: bool
    first_hinted_at: datetime | None
    later: Iterable[ReceivedWebhook]


def decide(
    identity_id: UUID, answer: Answer, state: CurrentState, now: datetime, event_id: UUID
) -> tuple[SyncResult, KratosIdentityUpdated | KratosIdentityGone | None]:
    """Decide what the answer means for our copy, and give the event to record, if any.

    ``now`` is by the ledger's clock.
    """
    outcome = _outcome(answer, state, now)
    # Recorded for an unchanged copy too: this answer outranks older events that are pending.
    is_recorded = outcome in {SyncOutcome.UPDATED, SyncOutcome.UNCHANGED}
    if outcome is SyncOutcome.DELETED:
        is_recorded = state.held is None or state.held.deleted_at is None
    if not is_recorded:
        return SyncResult(identity_id, outcome), None
    event = answer.event(event_id, identity_id, state.first_hinted_at)
    return SyncResult(identity_id, outcome, event.id), event


def _outcome(answer: Answer, state: CurrentState, now: datetime) -> SyncOutcome:
    held = state.held
    if held is not None and held.forgotten_at is not None:
        return SyncOutcome.ERASED
    if answer.identity is None:
        return SyncOutcome.DELETED if held or state.is_known else SyncOutcome.UNKNOWN
    if held is None:
        return SyncOutcome.UPDATED
    updated = copy(held)
    updated.ignore_answers_after(now)
    updated.update(answer.identity, at=answer.asked_at, cause=_NO_CAUSE, later=state.later)
    return SyncOutcome.UNCHANGED if updated.version == held.version else SyncOutcome.UPDATED
