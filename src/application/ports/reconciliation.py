"""Comparing what we hold with what Kratos lists, page by page, and remembering how far that is."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from kratos_sync.application.ports.kratos import Page

SHORTEST_PAUSE: Final = timedelta(minutes=1)
"""Between two, where Kratos' template fails again and again."""


class AnotherReconciliation(Exception):
    """One is at work: there is one at a time."""


class ReconciliationLost(Exception):
    """The connection that keeps others from reconciling was lost; it goes on where it stopped."""


class ListingUnordered(Exception):
    """A page's identities do not follow those before: who is not listed cannot be told from it."""


class NobodyKnown(Exception):
    """A listing has begun with strangers only, where we hold many."""


class Difference(NamedTuple):
    """An identity that is not here as it is in Kratos.

    ``fields`` names what differs, ``deleted_at`` where we hold it as deleted; None if we do not
    hold it at all, and none if Kratos does not.
    """

    identity_id: UUID
    fields: tuple[str, ...] | None


@dataclass(slots=True)
class Findings:
    """What a reconciliation has found so far.

    ``held`` were alive here when it began. Of the ``identities`` listed ``known`` were here,
    ``missing`` were not, ``stale`` were here and different, by ``fields`` with how many differ in
    each. ``unseen`` were here since before it began and were not listed; of those ``gone`` are
    gone, as Kratos said of each. ``unheard`` says for how many of the missing and the stale which
    webhook was missed. ``unreadable`` are listed, and cannot be read.
    """

    held: int = 0
    pages: int = 0
    identities: int = 0
    known: int = 0
    missing: int = 0
    stale: int = 0
    unseen: int = 0
    gone: int = 0
    fields: dict[str, int] = field(default_factory=dict)
    unheard: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0

    def with_page(
        self,
        number: int,
        known: int,
        differences: Sequence[Difference],
        unseen: int,
        *,
        unheard: Mapping[str, int] = MappingProxyType({}),
        unreadable: int = 0,
    ) -> "Findings":
        """Add what a page of so many identities has shown."""
        stale = [each.fields for each in differences if each.fields is not None]
        fields = dict(self.fields)
        for name in (name for names in stale for name in names):
            fields[name] = fields.get(name, 0) + 1
        return replace(
            self,
            pages=self.pages + 1,
            identities=self.identities + number,
            known=self.known + known,
            missing=self.missing + len(differences) - len(stale),
            stale=self.stale + len(stale),
            unseen=self.unseen + unseen,
            fields=fields,
            unheard=dict(Counter(self.unheard) + Counter(unheard)),
            unreadable=self.unreadable + unreadable,
        )

    @property
    def repairs(self) -> int:
        """How many identities were not here as they are in Kratos."""
        return self.missing + self.stale + self.gone


class Reconciliation(Protocol):
    """One comparison, from its first page to its end.

    Whatever is found to differ becomes an event of its own, in the same commit as the note of how
    far the comparison is: so what is interrupted goes on, and tells nothing twice. A dry one only
    looks. Every method raises LedgerUnavailable, ConcurrencyConflict or ReconciliationLost.
    """

    started_at: datetime
    findings: Findings
    resumed: bool
    """Whether it goes on with one that was interrupted."""
    differences: Sequence[Difference]
    """What the last step found."""
    schema_urls: Collection[str]
    """Of those who are alive here: where the schemas are that they were made by."""
    is_ours: bool
    """Whether Kratos was seen to have somebody whom we hold, by whatever but the listing."""

    @property
    def unreadable(self) -> int:
        """How many are listed and cannot be read: numbers beyond all bounds, say."""

    @property
    def token(self) -> str | None:
        """The page to ask for next; None for the first."""

    @property
    def listed(self) -> bool:
        """Whether the last page has been taken."""

    def knows(self, ids: Sequence[UUID]) -> bool:
        """Whether one of them is alive here."""

    def take(self, page: Page, at: datetime, most_unseen: int) -> None:
        """Compare a page that was asked for at that time.

        Raises ListingUnordered, KratosRefused for a page with somebody who has no id, and
        NobodyKnown for one with nobody whom we hold, nor any before it, where we hold more than so
        many and Kratos is not known to be ours.
        """

    def some_held(self, most: int) -> Sequence[UUID]:
        """Give some of those who are alive here."""

    def start_over(self) -> None:
        """Go back to the first page; what was found stays found."""

    def unseen(self, most: int) -> Sequence[UUID]:
        """Give some of those that no page showed, and that were not settled."""

    def settle(self, gone: Sequence[UUID], there: Sequence[UUID], at: datetime) -> None:
        """Take note of what Kratos said of them, asked one by one at that time."""

    def end(self, outcome: str) -> None:
        """Take note that it is over, and how it went."""


class Reconciliations(Protocol):
    """Begins comparisons, one at a time."""

    def begin(self, *, dry_run: bool) -> AbstractContextManager[Reconciliation]:
        """Begin one, or go on with one that was interrupted within a day.

        Raises AnotherReconciliation, LedgerUnavailable.
        """

    def is_due(self, every: timedelta) -> bool:
        """Whether none that came to its end began for so long.

        Sooner where KratosTemplateFailed was recorded since it began: after a pause as long as it
        took, SHORTEST_PAUSE at least.
        """

    def in_flight(self, most: int) -> int:
        """Count, up to so many, what consumers still owe of what was found."""


class PastReconciliation(NamedTuple):
    """One that is remembered; ``outcome`` and ``ended_at`` are None where it did not end.

    ``seen_at`` is when it last took a step.
    """

    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None
    outcome: str | None
    findings: Findings
