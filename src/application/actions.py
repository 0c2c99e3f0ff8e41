"""What an operator changes, as an operation that is recorded: for the commands and the console."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Unpack
from uuid import UUID

import structlog

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.erase import Erase
from kratos_sync.application.operation_scopes import ReconcileScope
from kratos_sync.application.operations import RunningOperation
from kratos_sync.application.ports.dead_letters import DeadLetterDecisions, DeadLetterFilter
from kratos_sync.application.ports.deletions import Deletions, Erased, Erasures
from kratos_sync.application.ports.kratos import (
    HeldElsewhere,
    KratosAdmin,
    SyncedIdentities,
    SyncOutcome,
    SyncResult,
)
from kratos_sync.application.ports.operations import Outcome
from kratos_sync.application.ports.policies import ConsumerPolicies
from kratos_sync.application.ports.reconciliation import (
    Findings,
    Reconciliation,
    Reconciliations,
)
from kratos_sync.application.ports.replay import EventRange, Narrowing, RecordedEvents
from kratos_sync.application.rate_limiter import RateLimiter
from kratos_sync.application.reconcile import DeletesRefused, Reconcile
from kratos_sync.application.replay import Progress, Replay
from kratos_sync.application.sync import SyncIdentities
from kratos_sync.domain.id_range import IdRange

STEP: Final = 4_000
"""Dead letters in one transaction: enough to be quick, few enough not to block others."""
BEFORE_ALL: Final = datetime(1970, 1, 1, tzinfo=UTC)
RETRY, DISCARD = "retry", "discard"

log = structlog.get_logger()


class NotSubscribed(Exception):
    """A consumer is not subscribed to the event that it should get again."""


def _ignore(_: object) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Actions:
    """Carries out operations that have begun, on these ports.

    Every method says to its operation how far it is, ends where that is to stop, and raises what
    its use case raises. ``kratos`` takes the options of the Admin API, and may raise
    KratosNotConfigured; ``public_urls`` are as `Reconcile` takes them. Identities of other ids
    than ``ids`` are another deployment's.
    """

    subscriptions: Subscriptions
    events: RecordedEvents
    dead_letters: DeadLetterDecisions
    policies: ConsumerPolicies
    kratos: Callable[..., KratosAdmin]
    synced: SyncedIdentities
    reconciliations: Reconciliations
    public_urls: Collection[str]
    ids: IdRange
    deletions: Deletions
    erasures: Erasures
    wake_relay: Callable[[], None]

    def range_of(
        self,
        consumer: str,
        name: str | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        **only: Unpack[Narrowing],
    ) -> EventRange:
        """All events of a consumer that exists, or those that match what is given.

        None is later than now: those are delivered anyway. Raises NotSubscribed.
        """
        names = self.subscriptions.events_of(consumer)
        if name is not None and name not in names:
            known = ", ".join(names)
            raise NotSubscribed(f"{consumer} is not subscribed to {name}, but to {known}")
        now = self.events.now()
        return EventRange(
            consumer,
            names if name is None else (name,),
            BEFORE_ALL if since is None else since,
            now if until is None else min(until, now),
            **only,
        )

    def replay(
        self,
        wanted: EventRange,
        rate: int,
        operation: RunningOperation,
        report: Callable[[Progress], None] = _ignore,
    ) -> None:
        """Replay a range, so many events a second at most."""
        if operation.total is None:
            operation.advance(0, self.events.count(wanted))
        batch_size = self.subscriptions.consumers[wanted.consumer].batch_size
        replaying = Replay(self.events, self.wake_relay, pause=operation.pause)
        for step in replaying.run(wanted, batch_size, rate):
            report(step)
            position = step.position.recorded_at.isoformat()
            operation.advance(step.replayed + step.left, left=step.left, go_on_since=position)

    def sync(
        self,
        ids: Sequence[UUID],
        operation: RunningOperation,
        report: Callable[[SyncResult], None] = _ignore,
    ) -> None:
        """Fetch identities from Kratos, and record them; it failed if Kratos refused one."""
        counts = Counter[str]()
        kratos = self.kratos(pause=operation.pause)
        syncing = SyncIdentities(kratos, self.synced, self.wake_relay, self.ids)
        for done, each in enumerate(syncing.run(ids), 1):
            report(each)
            counts[each.outcome.name.lower()] += 1
            if each.outcome is SyncOutcome.REFUSED:
                operation.ends_as = Outcome.FAILED
            operation.advance(done, len(ids), **counts)

    def delete(self, operation: RunningOperation) -> UUID:
        """Have workers delete the subject here, and then in Kratos; give the event's id.

        Raises HeldElsewhere.
        """
        if _subject(operation) not in self.ids:
            raise HeldElsewhere(self.ids)
        erase, by = operation.request.scope.get("erase") is True, operation.request.by
        event_id = self.deletions.request(_subject(operation), by=by, erase=erase)
        self.wake_relay()
        operation.advance(1, request=str(event_id))
        return event_id

    def erase(
        self, operation: RunningOperation, report: Callable[[Erased], None] = _ignore
    ) -> None:
        """Erase what is recorded of the subject; a relay erases what is left by an error."""
        erasing = Erase(self.erasures, self.wake_relay, pause=operation.pause)
        by, reason = operation.request.by, operation.request.reason or ""
        for erased in erasing.run(_subject(operation), by=by, reason=reason):
            report(erased)
            operation.advance(erased.events, deliveries=erased.deliveries, texts=erased.texts)

    def decide(
        self, wanted: DeadLetterFilter, operation: RunningOperation, rate: int | None = None
    ) -> None:
        """Make those that match pending again, or remove them for good, as the request says."""
        request, done = operation.request, 0
        limiter = RateLimiter(rate, pause=operation.pause) if rate else None
        step = min(STEP, limiter.step) if limiter else STEP
        is_retry = request.operation == RETRY
        if is_retry:
            steps = self.dead_letters.retry(wanted, request.by, step)
        else:
            steps = self.dead_letters.discard(wanted, request.by, request.reason or "", step)
        for number in steps:
            done += number
            if is_retry:
                self.wake_relay()
            operation.advance(done)
            if limiter:
                limiter.spend(number)

    def pause_consumer(self, operation: RunningOperation) -> None:
        """Deliver nothing to the request's consumer until it is resumed."""
        request = operation.request
        consumer, by, reason = request.consumer or "", request.by, request.reason or ""
        self.policies.pause(consumer, by=by, reason=reason)
        log.info("consumer_paused", consumer=consumer, by=by, reason=reason)

    def resume_consumer(self, operation: RunningOperation) -> bool:
        """Deliver to the request's consumer again; False if it was not paused."""
        consumer = operation.request.consumer or ""
        if was_paused := self.policies.resume(consumer):
            self.wake_relay()
            log.info("consumer_resumed", consumer=consumer, by=operation.request.by)
        operation.advance(int(was_paused))
        return was_paused

    def limit_consumer(
        self, operation: RunningOperation, rate: str | None, concurrency: int | None
    ) -> None:
        """Set both limits of the request's consumer; None is what its class says."""
        consumer, by = operation.request.consumer or "", operation.request.by
        self.policies.limit(consumer, rate, concurrency)
        log.info("consumer_limited", consumer=consumer, by=by, rate=rate, concurrency=concurrency)

    def reconcile(
        self,
        scope: ReconcileScope,
        operation: RunningOperation,
        report: Callable[[Reconciliation], None] = _ignore,
    ) -> None:
        """Compare everybody with Kratos, and repair what differs unless it is a dry run.

        One that is recorded lazily is recorded from its first repair on.
        """
        reconcile = Reconcile(
            self.kratos(keeps_trying=True, rate=scope.rate, pause=operation.pause),
            self.reconciliations,
            public_urls=self.public_urls,
            now=self.synced.now,
            wake_relay=self.wake_relay,
            pause=operation.pause,
        )
        found = Findings()
        try:
            for run in reconcile.run(dry_run=scope.dry_run, allow_deletes=scope.allow_deletes):
                found = run.findings
                report(run)
                if operation.id is None and (scope.dry_run or not found.repairs):
                    operation.pause(0)
                    continue
                operation.advance(
                    found.identities,
                    max(found.held, found.identities),
                    missing=found.missing,
                    stale=found.stale,
                    deleted=found.deleted,
                    unlisted=found.unlisted,
                )
        except DeletesRefused as error:
            operation.note(unlisted=found.unlisted, refused=str(error))
            raise


def _subject(operation: RunningOperation) -> UUID:
    if (subject := operation.request.subject) is None:
        raise ValueError(f"{operation.request.operation} is about one identity")
    return subject
