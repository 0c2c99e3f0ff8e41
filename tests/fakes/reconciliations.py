"""Comparing the in-memory ledger with a listing."""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from uuid_utils.compat import uuid7

from kratos_sync.application.missed_webhooks import Differing, classify
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import Page
from kratos_sync.application.ports.reconciliation import (
    SHORTEST_PAUSE,
    AnotherReconciliation,
    Difference,
    Findings,
    ListingUnordered,
    NoKnownIdentity,
)
from kratos_sync.domain.events import (
    DomainEvent,
    KratosIdentityGone,
    KratosIdentityUpdated,
    KratosTemplateFailed,
)
from kratos_sync.domain.id_range import ALL_IDS, IdRange
from kratos_sync.domain.identity import Identity, InvalidIdentity
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.testing.ledger import InMemoryLedger

BEFORE_ALL = UUID(int=0)
AFTER_ALL = UUID(int=2**128 - 1)


class InMemoryReconciliation:
    """A `Reconciliation` of an in-memory ledger; each step is done at once, or not at all."""

    def __init__(self, ledger: InMemoryLedger, ids: IdRange, number: int, *, dry_run: bool) -> None:
        self.ids = ids
        self._ledger = ledger
        alive = [each for each in self._held() if each.deleted_at is None]
        self.started_at = ledger.now
        self.findings = Findings(held=len(alive))
        self.schema_urls: Collection[str] = {each.schema_url for each in alive if each.schema_url}
        self.resumed = False
        self.is_same_kratos = False
        self.differences: Sequence[Difference] = []
        self.token: str | None = None
        self.listed = False
        self.outcome: str | None = None
        self.ended_at: datetime | None = None
        self._source = f"reconcile:{number}"
        self._dry_run = dry_run
        self._last = BEFORE_ALL
        self._unlisted: list[UUID] = []

    def knows(self, ids: Sequence[UUID]) -> bool:
        """Whether one of them is alive here."""
        alive = {each.id for each in self._ledger.identities if each.deleted_at is None}
        return not alive.isdisjoint(ids)

    def compare_page(self, page: Page, at: datetime, most_unlisted: int) -> None:
        """Compare a page, and record what differs."""
        documents = json.loads(page.identities)
        ids = [UUID(each["id"]) for each in documents]
        if [self._last, *ids] != sorted({self._last, *ids}):
            raise ListingUnordered("the page is not in order")
        upper = AFTER_ALL if page.next is None else [self._last, *ids][-1]
        unlisted = [
            each.id
            for each in self._held()
            if self._last < each.id <= upper and each.id not in ids and each.deleted_at is None
            if (each.created_at or each.synced_at) < self.started_at
        ]
        known = sum(self._ledger.identities.find(each) is not None for each in ids)
        so_far = self.findings
        is_strange = ids and not so_far.known + known and not self.is_same_kratos
        if is_strange and so_far.held > most_unlisted:
            raise NoKnownIdentity("the listing begins with no identity that is held here")
        found, differing, unreadable = [], [], 0
        for document in documents:
            try:
                identity = Identity.from_admin_api(document)
            except InvalidIdentity:
                unreadable += 1
                continue
            held = self._ledger.identities.find(identity.id)
            later = self._ledger.webhooks.after(identity.id, at)
            fields = held and held.differences(identity, at=at, later=later)
            if fields == ():
                continue
            event = KratosIdentityUpdated(uuid7(), at, identity)
            if self._record(event, f"{held and held.version}:{identity.updated_at}"):
                found.append(Difference(identity.id, fields))
                differing.append(Differing(identity, held, fields))
        self.findings = self.findings.with_page(
            len(ids),
            known,
            found,
            unlisted=len(unlisted),
            missed_webhooks=classify(differing, (), None),
            unreadable=unreadable,
        )
        self._unlisted += unlisted
        self._last, self.token, self.listed = upper, page.next, page.next is None
        self.differences = found

    def sample_ids(self, most: int) -> Sequence[UUID]:
        """Some who are alive here."""
        return [each.id for each in self._held() if each.deleted_at is None][:most]

    def start_over(self) -> None:
        """Go back to the first page."""
        self._unlisted, self._last, self.token, self.differences = [], BEFORE_ALL, None, []
        self.findings = self.findings.started_over()

    def unlisted(self, most: int) -> Sequence[UUID]:
        """Some that were not settled."""
        return sorted(each for each in self._unlisted if each in self.ids)[:most]

    def settle(self, deleted: Sequence[UUID], existing: Sequence[UUID], at: datetime) -> None:
        """Record that some are deleted."""
        for each in deleted:
            self._record(KratosIdentityGone(uuid7(), at, each), "gone")
        self._unlisted = [each for each in self._unlisted if each not in {*deleted, *existing}]
        self.findings = replace(self.findings, deleted=self.findings.deleted + len(deleted))
        self.differences = [Difference(each, ()) for each in deleted]

    def end(self, outcome: str) -> None:
        """Note the end."""
        self.outcome, self.ended_at = outcome, self._ledger.now
        self.differences = []

    def _held(self) -> list[KratosIdentity]:
        return [each for each in self._ledger.identities if each.id in self.ids]

    def _record(self, event: DomainEvent, what: str) -> bool:
        key = f"{self._source}:{event.subject}:{what}"
        return self._dry_run or self._ledger.publish(event, Provenance("reconcile", key))


class InMemoryReconciliations:
    """A `Reconciliations` that remembers its runs."""

    def __init__(self, ledger: InMemoryLedger, ids: IdRange = ALL_IDS) -> None:
        self.runs: list[InMemoryReconciliation] = []
        self._ids = ids
        self._ledger = ledger
        self._is_busy = False

    @contextmanager
    def begin(self, *, dry_run: bool) -> Iterator[InMemoryReconciliation]:
        """Begin one, or go on with the last."""
        if self._is_busy:
            raise AnotherReconciliation("another reconciliation is at work")
        self._is_busy = True
        try:
            yield self._dry() if dry_run else self._real()
        finally:
            self._is_busy = False

    def is_due(self, every: timedelta) -> bool:
        """Whether none that came to its end began for so long, or one is wanted sooner."""
        ended = [each for each in self.runs if each.ended_at]
        if not ended or ended[-1].started_at <= self._ledger.now - every:
            return True
        last = ended[-1]
        pause = max(last.ended_at - last.started_at, SHORTEST_PAUSE)
        return last.ended_at + pause <= self._ledger.now and any(
            each.name == KratosTemplateFailed.name and each.occurred_at > last.started_at
            for each in self._ledger.events.values()
        )

    def in_flight(self, most: int) -> int:
        """How many deliveries are pending."""
        return min(len(self._ledger.deliveries), most)

    def _dry(self) -> InMemoryReconciliation:
        return InMemoryReconciliation(self._ledger, self._ids, 0, dry_run=True)

    def _real(self) -> InMemoryReconciliation:
        if self.runs and self.runs[-1].outcome is None:
            self.runs[-1].resumed = True
            self.runs[-1].ids = self._ids
            return self.runs[-1]
        number = len(self.runs) + 1
        self.runs.append(InMemoryReconciliation(self._ledger, self._ids, number, dry_run=False))
        return self.runs[-1]
