"""How the ledger stands: what each consumer is owed, and how far behind it is."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from kratos_sync.application.drift import Drift
from kratos_sync.application.ports.hook_log import HookActivity
from kratos_sync.application.ports.purge import PastPurge


@dataclass(frozen=True, slots=True)
class TableSize:
    """What a table takes on disk, with its indexes."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Holder:
    """What has kept PostgreSQL for long from reusing the room of rows that are gone.

    ``kind`` is ``transaction`` (``name`` is its process id), ``prepared transaction`` (its global
    id) or ``replication slot`` (its name). ``held_for`` is None where our role may not see it;
    ``transactions`` is how many others have begun since.
    """

    kind: str
    name: str
    application: str | None
    held_for: timedelta | None
    transactions: int | None


@dataclass(frozen=True, slots=True)
class Storage:
    """The tables, the largest first; the oldest rows kept; the newest purge; what holds it up."""

    tables: tuple[TableSize, ...] = ()
    oldest_event_at: datetime | None = None
    oldest_attempt_at: datetime | None = None
    last_purge: PastPurge | None = None
    holders: tuple[Holder, ...] = ()

    @property
    def bytes(self) -> int:
        """What all tables take."""
        return sum(table.bytes for table in self.tables)


RECENT_ATTEMPTS: Final = 100_000
"""How many of the newest attempts, of all consumers, are looked through for a success."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many there are; ``estimated`` where counting each would take too long."""

    number: int
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """What one consumer is owed.

    Pending is what is ``due``, what is ``dispatched`` (under lease: at the broker or a worker) and
    what is ``waiting`` (for a retry, or for a release that knows the event); of the latter
    ``postponed`` wait because the consumer asked for it. What ``failed`` is a dead letter, and not
    owed. ``lag`` is the age of the oldest event owed and not postponed; None where nothing is.
    ``known`` is False for a consumer that this release does not have.
    """

    name: str
    known: bool
    due: int = 0
    dispatched: int = 0
    waiting: int = 0
    postponed: int = 0
    failed: int = 0
    lag: timedelta | None = None
    last_success_at: datetime | None = None
    """When an attempt last succeeded; None if none of the RECENT_ATTEMPTS did."""

    @property
    def backlog(self) -> int:
        """How many deliveries are owed."""
        return self.due + self.dispatched + self.waiting


@dataclass(frozen=True, slots=True)
class UnknownEvents:
    """Deliveries that wait for a release which knows this event, the ``oldest`` for so long."""

    name: str
    deliveries: int
    oldest: timedelta | None


class TemplateFailures(NamedTuple):
    """Calls of a hook that Kratos made with an empty body, by the hook's label."""

    label: str
    calls: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The ledger at one moment, by the database's clock, which is so far ahead of this process'."""

    at: datetime
    revision: str
    needed_revision: str
    alive: Count
    deleted: Count
    events: Count
    attempts: Count
    consumers: tuple[ConsumerStatus, ...]
    unknown_events: tuple[UnknownEvents, ...]
    storage: Storage
    drift: Drift = field(default_factory=Drift)
    hooks: Sequence[HookActivity] = ()
    clock_ahead: timedelta = timedelta()
    unsafe: Sequence[str] = ()
    """What may lose commits: ``fsync``, ``full_page_writes`` (both are off), or
    ``asynchronous_standby`` (none of the standbys is waited for)."""
    template_failures: Sequence[TemplateFailures] = ()
    """Since the last reconciliation began that was completed: it found whom they were about."""


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """Whether the broker answers, and the ``messages`` that wait there for each consumer.

    ``error`` is the type of what was raised instead of an answer; there are no messages then.
    """

    messages: Mapping[str, int]
    error: str | None = None

    @property
    def answers(self) -> bool:
        """Whether it does."""
        return self.error is None


class Status(Protocol):
    """A look at the whole ledger that stays quick when it is large."""

    def report(self, consumers: Collection[str]) -> StatusReport:
        """Tell how these consumers stand, in this order, and then any other that is owed something.

        Raises LedgerUnavailable, or the reason why the schema cannot be read.
        """


class ReadinessCheck(Protocol):
    """A look at one thing, such as the database, that bounds its own time."""

    @property
    def name(self) -> str:
        """What is looked at, in a word that a stranger may read."""

    def check(self) -> None:
        """Return if it is there; raise anything if not."""
