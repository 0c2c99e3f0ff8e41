"""Identities that a person had Kratos asked about, and what came of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID

from application.ports.kratos_answers import Answer


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
