"""What happened to one identity: its events, and what each consumer did with them."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from kratos_sync.application.ports.deletions import Erasure

DECISIONS: Final = ("retried", "discarded")
"""Outcomes that a person decided on: their error says who and why, and quotes nobody."""

_FRAME: Final = re.compile(r'^[ |]*File ".*$', re.MULTILINE)
_GROUP_MARGIN: Final = re.compile(r"^ *\| ")
_TYPE: Final = re.compile(r"[\w.<>]+(?=:|$)")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a delivery, or a decision about it; ``error`` may quote personal data."""

    number: int
    outcome: str
    started_at: datetime
    duration: timedelta
    error: str | None


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What is still owed: due at ``due_at``, or a dead letter since ``failed_at``.

    ``leased`` says that it was dispatched and not yet heard of.
    """

    attempts: int
    due_at: datetime
    leased: bool
    failed_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event at one consumer: its attempts, oldest first, and what is outstanding."""

    consumer: str
    attempts: tuple[Attempt, ...]
    outstanding: Outstanding | None


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event as it stands in the ledger, without its payload; ``erased_at`` says it has none."""

    id: UUID
    name: str
    source: str
    occurred_at: datetime
    recorded_at: datetime
    deliveries: tuple[Delivery, ...]
    erased_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class IdentitySummary:
    """Our copy of an identity, without anything of the person."""

    state: str | None
    version: int
    created_at: datetime | None
    updated_at: datetime | None
    deleted_at: datetime | None
    synced_at: datetime
    forgotten_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class IdentityHistory:
    """The newest of an identity's events, oldest first; ``recorded`` is how many there are in all.

    ``at`` is now by the database's clock. ``identity`` is None while no copy has been made,
    ``erasure`` if the person was not erased.
    """

    identity_id: UUID
    at: datetime
    identity: IdentitySummary | None
    recorded: int
    events: tuple[RecordedEvent, ...]
    erasure: Erasure | None = None


class History(Protocol):
    """The ledger read by person."""

    def of(self, identity_id: UUID, newest: int) -> IdentityHistory | None:
        """Tell what happened to an identity; None if nothing is known of it.

        Raises LedgerUnavailable, or the reason why the schema cannot be read.
        """


def error_type(error: str) -> str:
    """The exception's type in a delivery's error: the part of it that quotes nobody.

    An error is a traceback, or one line that begins with a type.
    """
    frames = list(_FRAME.finditer(error))
    rest = error[frames[-1].end() :] if frames else error
    lines = (_GROUP_MARGIN.sub("", line) for line in rest.splitlines())
    # Of a message that has many lines, any could pass for a type: only the first one is.
    first = next((line for line in lines if line and not line[0].isspace()), "")
    found = _TYPE.match(first)
    return found[0] if found else "unknown error"
