"""What an operation that can be resumed says of its scope: a filter without personal data."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Self
from uuid import UUID

import msgspec

from kratos_sync.application.ports.dead_letters import DeadLetterFilter, DeadLetters
from kratos_sync.application.ports.history import UNKNOWN_ERROR
from kratos_sync.application.ports.operations import CannotBeResumed, Operation
from kratos_sync.application.ports.purge import Retention
from kratos_sync.application.ports.replay import EventRange
from kratos_sync.domain.json_values import Json

MOST_GROUPS: Final = 10_000
NOT_KEPT: Final = "(not kept)"
"""In place of a name that has not the form of one: it may be an address."""
_PART: Final = r"(?:<locals>|[A-Za-z_][A-Za-z0-9_]{0,99})"
_NAME: Final = re.compile(rf"{_PART}(?:\.{_PART}){{0,9}}")


class ScopeNotKept(Exception):
    """The operation's filter was not recorded, as it might have been personal data."""


class Scope(msgspec.Struct, frozen=True, omit_defaults=True):
    """A scope, and the JSON that is recorded of it."""

    def to_json(self) -> dict[str, Json]:
        """Times in ISO 8601, what is not set left out."""
        written: dict[str, Json] = msgspec.to_builtins(self)
        return written

    @classmethod
    def of(cls, operation: Operation) -> Self:
        """Read the scope of a recorded operation. Raises ScopeNotKept."""
        if NOT_KEPT in operation.scope.values():
            raise ScopeNotKept("its filter was not recorded")
        try:
            return msgspec.convert(operation.scope, cls)
        except msgspec.ValidationError:
            raise ScopeNotKept("another release recorded it") from None


class DeadLetterScope(Scope, frozen=True, omit_defaults=True):
    """Of `retry` and `discard`; ``rate`` is the most dead letters a second.

    ``shape`` is a digest: the shape itself might quote a person, and what is recorded stays.
    """

    event_id: UUID | None = None
    event: str | None = None
    exception: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    rate: int | None = None
    shape: str | None = None

    @classmethod
    def of_filter(cls, wanted: DeadLetterFilter, rate: int | None = None) -> Self:
        """The scope that says this filter."""
        event, exception = _name(wanted.event), _name(wanted.exception)
        shape = None if wanted.shape is None else _digest(wanted.shape)
        return cls(wanted.event_id, event, exception, wanted.since, wanted.until, rate, shape)

    def to_filter(self, consumer: str | None) -> DeadLetterFilter:
        """The filter, at a consumer, without the shape."""
        return DeadLetterFilter(
            self.event_id, consumer, self.event, self.exception, self.since, self.until
        )

    def find(self, consumer: str | None, dead_letters: DeadLetters) -> DeadLetterFilter:
        """The filter, at a consumer; its shape is one of those that there are.

        Raises CannotBeResumed if there are no dead letters of that shape.
        """
        wanted = self.to_filter(consumer)
        if self.shape is None:
            return wanted
        for group in dead_letters.groups(wanted, MOST_GROUPS).groups:
            if _digest(group.shape or "") == self.shape:
                return replace(wanted, shape=group.shape or "")
        raise CannotBeResumed("no dead letter of its group is left")


class ReplayScope(Scope, frozen=True, omit_defaults=True):
    """Of `replay`; ``rate`` is the most events a second.

    ``group`` are dead letters, of the consumer ``of_consumer``.
    """

    names: tuple[str, ...]
    since: datetime
    until: datetime
    rate: int
    source: str | None = None
    hook: str | None = None
    trace_id: str | None = None
    outcome: str | None = None
    of_consumer: str | None = None
    event_ids: tuple[UUID, ...] = ()
    group: DeadLetterScope | None = None

    @classmethod
    def of_range(cls, wanted: EventRange, rate: int) -> Self:
        """The scope that says this range."""
        dead = wanted.dead
        return cls(
            wanted.names,
            wanted.since,
            wanted.until,
            rate,
            wanted.source,
            wanted.hook,
            wanted.trace_id,
            wanted.outcome,
            wanted.of_consumer if dead is None else dead.consumer,
            wanted.event_ids,
            None if dead is None else DeadLetterScope.of_filter(dead),
        )

    def dead(self, dead_letters: DeadLetters) -> DeadLetterFilter | None:
        """The dead letters of the range, if it is of some. Raises as `DeadLetterScope.find`."""
        return None if self.group is None else self.group.find(self.of_consumer, dead_letters)

    def to_range(self, operation: Operation, dead: DeadLetterFilter | None = None) -> EventRange:
        """What is left of the operation's range; its last events once more, if it died."""
        position: Any = operation.result.get("go_on_since")
        since = self.since if position is None else datetime.fromisoformat(position)
        return EventRange(
            operation.consumer or "",
            self.names,
            since,
            self.until,
            operation.subject,
            self.source,
            self.hook,
            self.trace_id,
            self.outcome,
            None if dead else self.of_consumer,
            self.event_ids,
            dead,
        )


class PurgeScope(Scope, frozen=True, omit_defaults=True):
    """Of `purge`: the ages from which on events and attempts are removed, in seconds."""

    events_older_than: float | None = None
    attempts_older_than: float | None = None

    @classmethod
    def of_retention(cls, retention: Retention) -> Self:
        """The scope that says this retention."""
        ages = (retention.events, retention.attempts)
        return cls(*(None if age is None else age.total_seconds() for age in ages))

    @property
    def retention(self) -> Retention:
        """The retention."""
        ages = (self.events_older_than, self.attempts_older_than)
        return Retention(*(None if age is None else timedelta(seconds=age) for age in ages))


class ReconcileScope(Scope, frozen=True, omit_defaults=True):
    """Of `reconcile`; ``rate`` is the most requests to Kratos a second."""

    allow_deletes: int = 0
    rate: float | None = None
    dry_run: bool = False


def _digest(shape: str) -> str:
    return sha256(shape.encode()).hexdigest()[:32]


def _name(given: str | None) -> str | None:
    is_name = given is None or given == UNKNOWN_ERROR or _NAME.fullmatch(given)
    return given if is_name else NOT_KEPT
