"""How far our copy was from Kratos at each reconciliation, and whether that is a rise."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from statistics import median
from typing import Final, NamedTuple

from application.ports.reconciliation import PastReconciliation
from application.unheard import missed

COMPARED_WITH: Final = 10
"""A rise is one against so many before,"""
FEWEST_BEFORE: Final = 3
"""and with fewer than these nobody can tell."""
FEW: Final = 10
"""So many are no rise, whatever was before."""
TIMES: Final = 3
SHORTEST: Final = timedelta(minutes=1)


class Rise(NamedTuple):
    """Webhooks that were missed in ``within``, where about ``usual`` were to be expected."""

    missed: int
    usual: float
    within: timedelta


@dataclass(frozen=True, slots=True)
class Drift:
    """The newest reconciliations, newest first, and whether one is at work."""

    past: Sequence[PastReconciliation] = ()
    is_running: bool = False

    @property
    def newest(self) -> PastReconciliation | None:
        """The last one that began."""
        return self.past[0] if self.past else None

    @property
    def last(self) -> PastReconciliation | None:
        """The last one that is over."""
        return next((each for each in self.past if each.ended_at), None)

    @property
    def compared(self) -> Sequence[PastReconciliation]:
        """Those that are over, and looked at anybody."""
        return [each for each in self.past if each.ended_at and each.findings.identities]

    @property
    def rise(self) -> Rise | None:
        """Whether the newest of them found more than was to be expected from those before.

        It is a rise if it misses more than 10 webhooks, and more than 3 times as many as usual:
        the median rate of the ten before, for as long as has passed since the last one. What no
        webhook tells does not count: neither a busy administrator nor the first reconciliation of
        old accounts is a rise. A median does not mind a day that was an exception, and a rate
        does not mind that one came late.
        """
        compared = self.compared
        spans = [
            (missed(each.findings.unheard), max(each.started_at - before.started_at, SHORTEST))
            for each, before in pairwise(compared)
        ]
        if len(spans) <= FEWEST_BEFORE:
            return None
        (number, within), *before = spans[: COMPARED_WITH + 1]
        usual = median(count / span.total_seconds() for count, span in before)
        expected = usual * within.total_seconds()
        if number <= FEW or number <= TIMES * expected:
            return None
        return Rise(number, expected, within)
