"""Comparing what is held here with Kratos' listing, page by page."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from kratos_sync.application.missed_webhooks import HOOKS
from kratos_sync.application.ports.kratos import Page
from kratos_sync.domain.id_range import IdRange

SHORTEST_PAUSE: Final = timedelta(minutes=1)
"""Between two runs, where Kratos' template fails again and again."""
MOST_KEPT_UNLISTED: Final = 10_000
"""Of a run that was refused: to be decided about one by one."""
_WRITTEN_AS: Final = {"unlisted": "unseen", "deleted": "gone", "missed_webhooks": "unheard"}
"""Columns and JSON keys keep the names that were given first."""


class AnotherReconciliation(Exception):
    """Another reconciliation is running: there is one at a time."""


class ReconciliationLost(Exception):
    """The connection that holds the lock was lost; the next run continues where it stopped."""


class ListingUnordered(Exception):
    """The listing is not ordered by id, so that it does not show which identities are missing."""


class NoKnownIdentity(Exception):
    """A listing begins with no identity that is held, where many are held."""


class Difference(NamedTuple):
    """An identity that is not here as it is in Kratos.

    ``fields`` names what differs, ``deleted_at`` where it is deleted here; None if it is not held
    at all, and empty if Kratos does not have it.
    """

    identity_id: UUID
    fields: tuple[str, ...] | None


@dataclass(slots=True)
class Findings:
    """What a reconciliation run has found so far.

    ``held`` identities were alive here when it began. Of the ``identities`` listed ``known`` were
    held here, ``missing`` were not, ``stale`` were held and different, by ``fields``;
    ``unreadable`` cannot be read. ``unlisted`` were held since before it began and not listed;
    Kratos said of ``deleted`` of them that they do not exist. ``missed_webhooks`` counts by hook.
    """

    held: int = 0
    pages: int = 0
    identities: int = 0
    known: int = 0
    missing: int = 0
    stale: int = 0
    unlisted: int = 0
    deleted: int = 0
    fields: dict[str, int] = field(default_factory=dict)
    missed_webhooks: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0

    def with_page(
        self,
        number: int,
        known: int,
        differences: Sequence[Difference],
        *,
        unlisted: int,
        unreadable: int,
        missed_webhooks: Mapping[str, int],
    ) -> "Findings":
        """Add what a page of so many identities has shown."""
        stale = [each.fields for each in differences if each.fields is not None]
        fields = Counter(name for names in stale for name in names)
        return replace(
            self,
            pages=self.pages + 1,
            identities=self.identities + number,
            known=self.known + known,
            missing=self.missing + len(differences) - len(stale),
            stale=self.stale + len(stale),
            unlisted=self.unlisted + unlisted,
            fields=dict(Counter(self.fields) + fields),
            missed_webhooks=dict(Counter(self.missed_webhooks) + Counter(missed_webhooks)),
            unreadable=self.unreadable + unreadable,
        )

    def started_over(self) -> "Findings":
        """Give what stays found when the listing is read from its first page again."""
        return replace(self, pages=0, identities=0, known=0, unlisted=0, unreadable=0)

    @property
    def repairs(self) -> int:
        """How many identities were not here as they are in Kratos."""
        return self.missing + self.stale + self.deleted

    @property
    def missed(self) -> int:
        """How many of the differences a webhook should have reported."""
        return sum(self.missed_webhooks.get(hook, 0) for hook in HOOKS)

    def to_record(self) -> dict[str, Any]:
        """Give it by the names of the table's columns, which are the JSON keys too."""
        return {_WRITTEN_AS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Findings":
        """Read it from a row of the table."""
        names = cls.__dataclass_fields__
        return cls(**{name: record[_WRITTEN_AS.get(name, name)] for name in names})


class Reconciliation(Protocol):
    """One run, from its first page to its end.

    Each difference becomes an event in the transaction that records how far the run is: so an
    interrupted run continues, and records nothing twice. A dry run writes nothing. Every method
    raises LedgerUnavailable, ConcurrencyConflict or ReconciliationLost.
    """

    ids: IdRange
    """The identities that are compared: no others are given, counted, or found unlisted."""
    started_at: datetime
    findings: Findings
    resumed: bool
    """Whether it continues an interrupted run."""
    differences: Sequence[Difference]
    """What the last step found."""
    schema_urls: Collection[str]
    """The schema URLs of the identities that are alive here."""
    is_same_kratos: bool
    """Whether Kratos was seen to have an identity that is held, other than in the listing."""

    @property
    def token(self) -> str | None:
        """The page to ask for next; None for the first."""

    @property
    def listed(self) -> bool:
        """Whether the last page has been compared."""

    def knows(self, ids: Sequence[UUID]) -> bool:
        """Whether one of them is alive here."""

    def compare_page(self, page: Page, at: datetime, most_unlisted: int) -> None:
        """Compare a page that was asked for at that time, and has no identity of others.

        Raises ListingUnordered, KratosRefused for a page with an identity without id, and
        NoKnownIdentity for one with no identity that is held, nor any before it, where more than
        ``most_unlisted`` are held and Kratos is not known to be the same.
        """

    def sample_ids(self, most: int) -> Sequence[UUID]:
        """Give some of the identities that are alive here."""

    def start_over(self) -> None:
        """Go back to the first page; differences found stay found."""

    def unlisted(self, most: int) -> Sequence[UUID]:
        """Give some of those that no page listed, and that were not settled."""

    def settle(self, deleted: Sequence[UUID], existing: Sequence[UUID], at: datetime) -> None:
        """Record what Kratos said of unlisted ones, asked one by one at that time."""

    def end(self, outcome: str) -> None:
        """Record that the run is over, and its outcome."""


class Reconciliations(Protocol):
    """Begins runs, one at a time."""

    def begin(self, *, dry_run: bool) -> AbstractContextManager[Reconciliation]:
        """Begin a run, or continue one that was interrupted within a day.

        Raises AnotherReconciliation, LedgerUnavailable.
        """

    def is_due(self, every: timedelta) -> bool:
        """Whether no run that was completed began for so long.

        Sooner where KratosTemplateFailed was recorded since it began: after a pause as long as it
        took, SHORTEST_PAUSE at least.
        """

    def in_flight(self, most: int) -> int:
        """Count, up to so many, pending deliveries to the consumer that keeps the copies."""


class PastReconciliation(NamedTuple):
    """A recorded run; ``outcome`` and ``ended_at`` are None where it did not end.

    ``seen_at`` is when it last took a step.
    """

    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None
    outcome: str | None
    findings: Findings

    @property
    def refusal(self) -> str | None:
        """Why no identity was deleted, if that was refused."""
        kind, _, why = (self.outcome or "").partition(": ")
        return why if kind == "refused" else None
