"""The recorded reconciliation runs, and whether missed webhooks have risen."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from kratos_sync.application.ports.hook_log import HookActivity
from kratos_sync.application.ports.reconciliation import PastReconciliation

COMPLETED: Final = "completed"
MOST_PAST: Final = 30
"""So many of the newest runs are looked at."""
COMPARED_WITH: Final = 10
FEWEST_BEFORE: Final = 3
FEW: Final = 10
TIMES: Final = 3
SHORTEST: Final = timedelta(minutes=1)


class Rise(NamedTuple):
    """Webhooks that were missed in ``within``, where about ``usual`` were to be expected."""

    missed: int
    usual: float
    within: timedelta


@dataclass(frozen=True, slots=True)
class Drift:
    """The newest reconciliation runs, newest first, and whether one is running."""

    past: Sequence[PastReconciliation] = ()
    is_running: bool = False

    @property
    def may_have_older(self) -> bool:
        """Whether there may be older runs than those."""
        return len(self.past) >= MOST_PAST

    @property
    def newest(self) -> PastReconciliation | None:
        """The last run that began."""
        return self.past[0] if self.past else None

    @property
    def last(self) -> PastReconciliation | None:
        """The last run that ended."""
        return next((each for each in self.past if each.ended_at), None)

    @property
    def completed(self) -> PastReconciliation | None:
        """The last run that completed."""
        return next((each for each in self.past if each.outcome == COMPLETED), None)

    def state_of(self, run: PastReconciliation) -> str:
        """``running``, ``interrupted``, ``completed`` or ``refused``."""
        if run.ended_at is None:
            return "running" if self.is_running and run is self.newest else "interrupted"
        return COMPLETED if run.outcome == COMPLETED else "refused"

    @property
    def compared(self) -> Sequence[PastReconciliation]:
        """The runs that ended, and compared any identity."""
        return [each for each in self.past if each.ended_at and each.findings.identities]

    @property
    def rise(self) -> Rise | None:
        """Whether the newest run found more missed webhooks than the runs before let expect.

        It is a rise if more than 10 are missed, and more than 3 times as many as usual: the median
        rate of the ten runs before, for as long as has passed since the last one. A median ignores
        one exceptional day, and a rate allows for a late run. With fewer than three runs before,
        it is unknown.
        """
        periods = [
            (each.findings.missed, max(each.started_at - before.started_at, SHORTEST))
            for each, before in pairwise(self.compared)
        ]
        if len(periods) <= FEWEST_BEFORE:
            return None
        (number, within), *before = periods[: COMPARED_WITH + 1]
        usual = median(count / period.total_seconds() for count, period in before)
        expected = usual * within.total_seconds()
        if number <= FEW or number <= TIMES * expected:
            return None
        return Rise(number, expected, within)


@dataclass(frozen=True, slots=True)
class KratosReport:
    """What the ledger knows of Kratos, at one moment."""

    at: datetime
    drift: Drift
    hooks: Sequence[HookActivity]


class UnlistedIdentity(NamedTuple):
    """An identity that Kratos did not list; ``traits`` are JSON, and personal data."""

    id: UUID
    traits: str | None = None


class Unlisted(NamedTuple):
    """Some of them by id, whether there are ``more``, and the ``number`` of all."""

    number: int
    identities: Sequence[UnlistedIdentity]
    more: bool


class KratosStatus(Protocol):
    """Every method raises LedgerUnavailable, or the reason why the schema cannot be read."""

    def report(self) -> KratosReport:
        """Reconciliations and hooks."""

    def past(self, before: datetime, most: int) -> Sequence[PastReconciliation]:
        """The newest reconciliations that began before then, at most so many."""

    def unlisted(self, after: UUID, most: int, *, with_traits: bool = False) -> Unlisted:
        """Those that the last reconciliation, if it was refused, did not find in the listing.

        Without those that are deleted here, or that Kratos answered about since. At most so many
        with higher ids than ``after``. None are kept of more than MOST_KEPT_UNLISTED.
        """
