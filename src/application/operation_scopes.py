"""What an operation that can be resumed says of its scope: a filter without personal data."""

import re
from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

import msgspec

from kratos_sync.application.ports.dead_letters import DeadLetterFilter
from kratos_sync.application.ports.operations import Operation
from kratos_sync.application.ports.purge import Retention
from kratos_sync.application.ports.replay import EventRange
from kratos_sync.domain.json_values import Json

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
        return msgspec.convert(operation.scope, cls)


class DeadLetterScope(Scope, frozen=True, omit_defaults=True):
    """Of `retry` and `discard`; ``rate`` is the most dead letters a second."""

    event_id: UUID | None = None
    event: str | None = None
    exception: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    rate: int | None = None

    @classmethod
    def of_filter(cls, wanted: DeadLetterFilter, rate: int | None = None) -> Self:
        """The scope that says this filter."""
        event, exception = _name(wanted.event), _name(wanted.exception)
        return cls(wanted.event_id, event, exception, wanted.since, wanted.until, rate)

    def to_filter(self, consumer: str | None) -> DeadLetterFilter:
        """The filter, at a consumer."""
        return DeadLetterFilter(
            self.event_id, consumer, self.event, self.exception, self.since, self.until
        )


class ReplayScope(Scope, frozen=True):
    """Of `replay`; ``rate`` is the most events a second."""

    names: tuple[str, ...]
    since: datetime
    until: datetime
    rate: int

    @classmethod
    def of_range(cls, wanted: EventRange, rate: int) -> Self:
        """The scope that says this range."""
        return cls(wanted.names, wanted.since, wanted.until, rate)

    def to_range(self, operation: Operation) -> EventRange:
        """What is left of the operation's range; its last events once more, if it died."""
        position: Any = operation.result.get("go_on_since")
        since = self.since if position is None else datetime.fromisoformat(position)
        return EventRange(
            operation.consumer or "", self.names, since, self.until, operation.subject
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


def _name(given: str | None) -> str | None:
    return given if given is None or _NAME.fullmatch(given) else NOT_KEPT
