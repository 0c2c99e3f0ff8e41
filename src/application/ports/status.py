"""The state of the ledger: each consumer's backlog and lag, and what the database stores."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from kratos_sync.application.drift import Drift
from kratos_sync.application.ports.hook_log import HookActivity
from kratos_sync.application.ports.operations import Operation
from kratos_sync.application.ports.purge import PastPurge


@dataclass(frozen=True, slots=True)
class Holder:
    """What has long kept PostgreSQL from reusing the space of dead rows.

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
    """The tables and their bytes on disk, largest first; the oldest rows; what keeps dead rows."""

    tables: Mapping[str, int] = field(default_factory=dict)
    oldest_event_at: datetime | None = None
    oldest_attempt_at: datetime | None = None
    last_purge: PastPurge | None = None
    holders: tuple[Holder, ...] = ()

    @property
    def bytes(self) -> int:
        """The size of all tables."""
        return sum(self.tables.values())


BEHIND: Final = timedelta(minutes=1)
"""A consumer with a greater lag needs attention."""
RECENT_ATTEMPTS: Final = 20_000
"""How many of the newest attempts, of all consumers, are searched for a success."""


@dataclass(frozen=True, slots=True)
class Count:
    """A number of rows; ``estimated`` where counting would take too long."""

    number: int
    estimated: bool = False


class Pause(NamedTuple):
    """Since when a consumer is paused, by whom, and why."""

    since: datetime
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConsumerStatus:
    """The deliveries of one consumer.

    Pending are those that are ``due``, ``dispatched`` (leased: at the broker or a worker) or
    ``waiting`` (for a retry, or for a release that knows the event); ``postponed`` ones wait
    because their consumer asked for it. ``failed`` are dead letters, which are not pending.
    ``lag`` is the age of the oldest pending delivery that is not postponed. ``known`` is False
    for a consumer that this release does not have.
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
    last_error: str | None = None
    """Type and shape of the error of a delivery that waits for a retry."""
    paused: Pause | None = None
    events: Sequence[str] = ()
    """The names of the events that the database records for it."""

    @property
    def backlog(self) -> int:
        """How many deliveries are pending."""
        return self.due + self.dispatched + self.waiting

    @property
    def troubles(self) -> Sequence[str]:
        """What is not as it should be, each in a word or two."""
        is_paused = self.paused is not None
        wrong = {
            "paused": is_paused,
            "behind": not is_paused and self.lag is not None and self.lag > BEHIND,
            "retrying": self.waiting > self.postponed,
            "dead letters": self.failed,
            "not known": not self.known,
        }
        return [word for word, applies in wrong.items() if applies]


@dataclass(frozen=True, slots=True)
class UnknownEvents:
    """Deliveries that wait for a release that knows this event; the age of the ``oldest``."""

    name: str
    deliveries: int
    oldest: timedelta | None


@dataclass(frozen=True, slots=True)
class Failover:
    """Another server became the primary, or a backup was restored.

    ``is_same_cluster`` is False for a server that is no copy of the one before, as after restoring
    a dump. ``last_commit_at`` is when the last transaction committed that it has of the one before,
    and ``missing_bytes`` how much is missing for certain of the log of that; None if unknown.
    """

    at: datetime
    timeline: int
    before: int
    is_same_cluster: bool
    last_commit_at: datetime | None = None
    missing_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The ledger at one moment; ``clock_ahead`` says how far the database's clock is ahead."""

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
    """What may lose commits: ``fsync`` or ``full_page_writes`` (which are off), or
    ``asynchronous_standby`` (no commit waits for a standby)."""
    template_failures: Sequence[HookActivity] = ()
    """Calls with an empty body since the last completed reconciliation began."""
    operations: Sequence[Operation] = ()
    """Those that run; and for a day those whose process died, unless they were resumed."""
    failover: Failover | None = None
    """The newest that no completed reconciliation has followed."""


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """Whether the broker answers, and the number of waiting ``messages`` for each consumer.

    Without an answer, ``error`` is the type of the exception, and there are no messages. One in the
    memory of another process may not be asked, nor one whose queues this role cannot know: then
    ``error`` says what to run.
    """

    messages: Mapping[str, int]
    error: str | None = None
    is_asked: bool = True

    @property
    def answers(self) -> bool | None:
        """Whether the broker answers; None if it cannot be asked."""
        return self.error is None if self.is_asked else None


class Status(Protocol):
    """A report on the whole ledger that stays quick when it is large."""

    def report(self, consumers: Collection[str], *, with_successes: bool = True) -> StatusReport:
        """Report on these consumers, in this order, and then on others with deliveries.

        When an attempt of each last succeeded costs most, and can be left out.

        Raises LedgerUnavailable, or the reason why the schema cannot be read.
        """


class ReadinessCheck(Protocol):
    """A check of one dependency, such as the database, that bounds its own time."""

    @property
    def name(self) -> str:
        """What is checked, in one word that anyone may read."""

    def check(self) -> None:
        """Return if it is ready; raise anything if not."""
