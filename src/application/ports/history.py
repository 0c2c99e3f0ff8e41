"""The history of one identity: its events and their deliveries."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

from kratos_sync.application.ports.deletions import Erasure
from kratos_sync.application.ports.position import Position
from kratos_sync.domain.json_values import Json

DECISIONS: Final = ("retried", "discarded")
"""Outcomes that an operator decided on: their error says who and why, without personal data."""
UNKNOWN_ERROR: Final = "unknown error"
"""In place of an exception's type, where the error names none."""

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
    """A pending delivery, due at ``due_at``; or a dead letter, since ``failed_at``.

    ``leased`` is whether it is dispatched, ``error`` that of its last attempt, and ``shape`` that
    of the error's message, without personal data.
    """

    attempts: int
    due_at: datetime
    leased: bool
    failed_at: datetime | None
    error: str | None
    shape: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one consumer: its attempts, oldest first, and the delivery while it exists."""

    consumer: str
    attempts: tuple[Attempt, ...]
    outstanding: Outstanding | None


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """A recorded event without its payload, which is empty if ``erased_at`` is set."""

    id: UUID
    name: str
    source: str
    occurred_at: datetime
    recorded_at: datetime
    deliveries: tuple[Delivery, ...]
    erased_at: datetime | None = None
    hook: str | None = None
    """The label of Kratos' hook that called, if one did."""


@dataclass(frozen=True, slots=True)
class IdentitySummary:
    """Our copy of an identity, without personal data."""

    state: str | None
    version: int
    created_at: datetime | None
    updated_at: datetime | None
    deleted_at: datetime | None
    synced_at: datetime
    forgotten_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class IdentityHistory:
    """The newest events of an identity, oldest first; ``recorded`` is the number of all its events.

    ``at`` is the time by the database's clock. ``identity`` is None while there is no copy,
    ``erasure`` unless the identity was erased.
    """

    identity_id: UUID
    at: datetime
    identity: IdentitySummary | None
    erasure: Erasure | None
    recorded: int
    events: tuple[RecordedEvent, ...]


class IdentitySearch(Protocol):
    """Finds identities by what a person knows of them."""

    def find(self, known: str, most: int) -> Sequence[UUID]:
        """The ids of at most so many identities: by id, external id, or exact address.

        An id is also found where only events are recorded under it. Addresses are compared as they
        are, and in lower case. Raises LedgerUnavailable, or the reason why the schema cannot be
        read.
        """


class History(Protocol):
    """The ledger by identity."""

    def of(
        self, identity_id: UUID, newest: int, before: Position | None = None
    ) -> IdentityHistory | None:
        """The history of an identity; None if the ledger knows nothing of it.

        It has the newest events, at most so many, of those before a position.

        Raises LedgerUnavailable, or the reason why the schema cannot be read.
        """

    def of_moment(self, identity_id: UUID, occurred_at: datetime) -> tuple[RecordedEvent, ...]:
        """The events of an identity that occurred at one time, oldest first, 50 at most.

        These are an event and what consumers raised because of it; see `causes`. Raises as ``of``.
        """

    def copy_of(self, identity_id: UUID) -> Mapping[str, Json]:
        """Our copy of an identity by column, personal data included; empty if there is none.

        Raises as ``of``.
        """


def causes(events: Iterable[RecordedEvent]) -> Mapping[UUID, RecordedEvent]:
    """For each event, oldest first, the one among them because of which a consumer raised it.

    What is raised has the time of its cause, and the consumer as its source.
    """
    found: dict[UUID, RecordedEvent] = {}
    received: dict[tuple[datetime, str], RecordedEvent] = {}
    for event in events:
        cause = received.get((event.occurred_at, event.source))
        if cause is not None and cause.recorded_at < event.recorded_at:
            found[event.id] = cause
        for delivery in event.deliveries:
            received[event.occurred_at, delivery.consumer] = event
    return found


def error_type(error: str) -> str:
    """The exception's type in a delivery's error: the part without personal data.

    An error is a traceback, or one line that begins with a type.
    """
    frames = list(_FRAME.finditer(error))
    rest = error[frames[-1].end() :] if frames else error
    lines = (_GROUP_MARGIN.sub("", line) for line in rest.splitlines())
    # Any line of the message could look like a type: only the first line is one.
    first = next((line for line in lines if line and not line[0].isspace()), "")
    found = _TYPE.match(first)
    return found[0] if found else UNKNOWN_ERROR
