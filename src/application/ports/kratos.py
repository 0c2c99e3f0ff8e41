"""Kratos' Admin API, and what is recorded of its answers."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from kratos_sync.domain.events import (
    DomainEvent,
    KratosIdentityGone,
    KratosIdentityHinted,
    KratosIdentityUpdated,
)
from kratos_sync.domain.id_range import IdRange
from kratos_sync.domain.identity import Identity

MOST_AT_ONCE: Final = 500
"""The identities of a page, and the ids that may be asked for together."""


class KratosError(Exception):
    """The Admin API gave no usable answer. The message quotes nothing of what it answered."""


class KratosUnavailable(KratosError):
    """The Admin API cannot answer now; a later call may succeed.

    ``problem`` is short, for the log; ``retry_after`` is how long to wait, if that is known.
    """

    def __init__(self, problem: str, retry_after: timedelta | None = None) -> None:
        super().__init__(f"Kratos' Admin API is not available: {problem}")
        self.problem = problem
        self.retry_after = retry_after


class KratosRefused(KratosError):
    """Retrying will not help: address, credentials, request or answer are wrong.

    ``status`` is that of the answer; None where the answer itself is one that Kratos never gives.
    """

    def __init__(self, problem: str, status: int | None = None) -> None:
        super().__init__(f"Kratos' Admin API cannot be used: {problem}")
        self.problem = problem
        self.status = status


class KratosNotConfigured(KratosError):
    """No KRATOS_ADMIN_URL is set."""

    def __init__(self) -> None:
        super().__init__("KRATOS_ADMIN_URL is not set")


class HeldElsewhere(Exception):
    """An identity is not one of those that this deployment holds."""

    def __init__(self, ids: IdRange) -> None:
        super().__init__(f"another deployment holds this identity: IDENTITY_IDS is {ids} here")


class Page(NamedTuple):
    """Up to 500 identities, ordered by id.

    ``identities`` is a JSON array in UTF-8 as Kratos wrote it, but for characters that PostgreSQL's
    `jsonb` refuses: those are U+FFFD. ``next`` is for `KratosAdmin.page`; None on the last page.
    """

    identities: bytes
    next: str | None


class KratosAdmin(Protocol):
    """The Admin API. Every method raises KratosUnavailable or KratosRefused.

    All but `page` take some ten seconds at most.
    """

    def page(self, token: str | None) -> Page:
        """Give the first page of the listing, or the one that a page's ``next`` leads to.

        Retries for minutes, and longer where Kratos itself asks for it. A listing is no snapshot:
        an identity created or deleted meanwhile may be in it or not.
        """

    def find(self, identity_id: UUID) -> Identity | None:
        """Give an identity as it is now; None only if Kratos itself says that it has none."""

    def find_all(self, ids: Sequence[UUID]) -> Mapping[UUID, Identity]:
        """Give those of up to 500 identities that exist. Raises ValueError for more ids.

        The ten seconds are for each of its requests.
        """

    def delete(self, identity_id: UUID) -> bool:
        """Delete an identity and everything that Kratos has of it.

        False if there was none; also where the answer to a first attempt was lost.
        """


class Answer(NamedTuple):
    """What the Admin API said of one identity; None if it has none.

    ``asked_at`` is right before the question, by the ledger's clock.
    """

    asked_at: datetime
    identity: Identity | None

    def event(
        self, event_id: UUID, identity_id: UUID, first_hinted_at: datetime | None = None
    ) -> KratosIdentityUpdated | KratosIdentityGone:
        """Give the event that records this answer.

        ``first_hinted_at`` is when the identity was first hinted at, if it is not held here.
        """
        if self.identity is None:
            return KratosIdentityGone(event_id, self.asked_at, identity_id)
        return KratosIdentityUpdated(event_id, self.asked_at, self.identity, first_hinted_at)


class KratosAnswers(Protocol):
    """Asks the Admin API for one transaction, and records the answers in it."""

    def is_answered(self, hint: KratosIdentityHinted) -> bool:
        """Whether an answer is recorded that was asked for after the hint was recorded."""

    def ask(self, identity_id: UUID) -> Answer:
        """Give the answer; the same one each time.

        Raises KratosUnavailable, KratosRefused, KratosNotConfigured, or HeldElsewhere for one that
        is not held by this deployment. The first call asks about
        all identities of the transaction in one request; those not found are then looked up alone.
        """

    def record(self, identity_id: UUID, answer: Answer) -> None:
        """Record KratosIdentityUpdated or KratosIdentityGone in this transaction, once."""

    def observe(self, fact: DomainEvent | None) -> None:
        """Record a fact in this transaction, if there is one."""


class SyncOutcome(StrEnum):
    """What an answer means for our copy."""

    UPDATED = "updated"
    UNCHANGED = "same"
    DELETED = "gone"
    UNKNOWN = "unknown"
    """Kratos has no such identity, and no event was ever recorded about it."""
    ERASED = "forgotten"
    """The identity was erased here on request, whatever Kratos has."""
    REFUSED = "refused"
    """The Admin API refused to answer, its answer is no identity, or it is held elsewhere."""


class SyncResult(NamedTuple):
    """The outcome for one identity. ``event_id`` is None where nothing was recorded."""

    identity_id: UUID
    outcome: SyncOutcome
    event_id: UUID | None = None
    problem: str | None = None


class PendingCount(NamedTuple):
    """How many deliveries of some events are pending, and how many are dead letters."""

    pending: int
    dead: int


class SyncedIdentities(Protocol):
    """The ledger as `SyncIdentities` uses it. Each method raises LedgerUnavailable."""

    def now(self) -> datetime:
        """The time by the ledger's clock."""

    def record(self, answers: Mapping[UUID, Answer]) -> Sequence[SyncResult]:
        """Compare with our copies, and record in one commit what `application.sync.decide` says.

        Raises ConcurrencyConflict.
        """

    def count_pending(self, event_ids: Sequence[UUID]) -> PendingCount:
        """Count the deliveries that are left of these events."""
