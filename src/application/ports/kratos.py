"""Asking Kratos itself, by its Admin API: what it says there is exact, and the last word."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from kratos_sync.domain.events import KratosIdentityHinted
from kratos_sync.domain.identity import Identity

MOST_AT_ONCE: Final = 500
"""The identities of a page, and the ids that may be asked for together."""


class KratosError(Exception):
    """Kratos did not say what it was asked; the message quotes nothing of what it answered."""


class KratosUnavailable(KratosError):
    """Kratos cannot tell now, and may another time.

    ``problem`` is a word for the log; ``retry_after`` is how long to leave Kratos alone, if known.
    """

    def __init__(self, problem: str, retry_after: timedelta | None = None) -> None:
        super().__init__(f"Kratos' Admin API is not available: {problem}")
        self.problem = problem
        self.retry_after = retry_after


class KratosRefused(KratosError):
    """Kratos will not tell, however often it is asked: address, credentials or request are wrong.

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


class Page(NamedTuple):
    """Up to 500 identities, ordered by id.

    ``identities`` is a JSON array in UTF-8 as Kratos wrote it, but for characters that PostgreSQL's
    `jsonb` refuses: those are U+FFFD. ``next`` is for `KratosAdmin.page`; None on the last page.
    """

    identities: bytes
    next: str | None


class KratosAdmin(Protocol):
    """Kratos' Admin API. Every method raises KratosUnavailable or KratosRefused.

    Safe to use from many threads. What an identity holds is exact (large integers too), has
    `metadata_admin`, and has no credentials; characters that `jsonb` refuses are U+FFFD in it.
    """

    def page(self, token: str | None) -> Page:
        """Give the first page of the listing, or the one that a page's ``next`` leads to.

        Waits for a Kratos that is away for minutes, and for one that says how long for longer. A
        listing is no snapshot: who is made or removed meanwhile may be in it or not.
        """

    def find(self, identity_id: UUID) -> Identity | None:
        """Give an identity as it is now; None if Kratos says in its own words that it has none.

        Takes some ten seconds at most.
        """

    def find_all(self, ids: Sequence[UUID]) -> Mapping[UUID, Identity]:
        """Give those of up to 500 identities that there are.

        Raises ValueError for more. Each request of it takes some ten seconds at most.
        """

    def delete(self, identity_id: UUID) -> bool:
        """Remove an identity for good, and everything that Kratos has of it.

        False if it was gone already; so it is too when an answer was lost on its way and Kratos
        is asked again. Takes some ten seconds at most.
        """


class Answer(NamedTuple):
    """What Kratos said of one identity; None if it has none.

    ``asked_at`` is right before it was asked, by the ledger's clock.
    """

    asked_at: datetime
    identity: Identity | None


class KratosAnswers(Protocol):
    """Kratos' answers, as one transaction gets them, and those that were recorded before."""

    def is_answered(self, hint: KratosIdentityHinted) -> bool:
        """Whether an answer is recorded that Kratos was asked for after the hint was recorded."""

    def ask(self, identity_id: UUID) -> Answer:
        """Give Kratos' answer; the same one each time.

        Raises KratosUnavailable, KratosRefused or KratosNotConfigured. The first question is about
        all whom this transaction is about: so many of them cost one request, and who is not shown
        there is asked for alone.
        """

    def tell(self, identity_id: UUID, answer: Answer) -> None:
        """Record KratosIdentityUpdated or KratosIdentityGone in this transaction, once."""


class Outcome(StrEnum):
    """What Kratos' answer is to us."""

    UPDATED = "updated"
    SAME = "same"
    GONE = "gone"
    UNKNOWN = "unknown"
    """Neither Kratos has such an identity, nor have we ever heard of it."""
    FORGOTTEN = "forgotten"
    """We were told to forget the person, whatever Kratos has."""
    REFUSED = "refused"
    """Kratos would not tell, or not what an identity is."""


class Asked(NamedTuple):
    """What came of one question. ``event_id`` is None where there was nothing to record."""

    identity_id: UUID
    outcome: Outcome
    event_id: UUID | None = None
    problem: str | None = None


class Owed(NamedTuple):
    """How many deliveries of some events are outstanding, and how many are dead letters."""

    outstanding: int
    failed: int


class AskedIdentities(Protocol):
    """What a person has asked Kratos, in the ledger. Each method raises LedgerUnavailable."""

    def now(self) -> datetime:
        """The time by the ledger's clock."""

    def record(self, answers: Mapping[UUID, Answer]) -> Sequence[Asked]:
        """Record in one commit what Kratos says of each, also where it is the same as here.

        Not recorded is the absence of who was known to be gone or was never heard of, nor anything
        of who is forgotten. Raises ConcurrencyConflict.
        """

    def owed(self, event_ids: Sequence[UUID]) -> Owed:
        """Count what is owed of these events."""
