"""What an operator changes, as an operation that is recorded."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.erase import Erase
from kratos_sync.application.operations import RunningOperation
from kratos_sync.application.ports.dead_letters import DeadLetterDecisions, DeadLetterFilter
from kratos_sync.application.ports.deletions import Deletions, Erasures
from kratos_sync.application.ports.kratos import KratosAdmin, SyncedIdentities, SyncOutcome
from kratos_sync.application.ports.operations import OperationRequest, Outcome
from kratos_sync.application.ports.policies import ConsumerPolicies
from kratos_sync.application.ports.reconciliation import Findings
from kratos_sync.application.ports.replay import EventRange, RecordedEvents
from kratos_sync.application.reconcile import DeletesRefused, Reconcile
from kratos_sync.application.replay import Replay
from kratos_sync.application.sync import SyncIdentities

REPLAYED_A_SECOND: Final = 100
STEP: Final = 1_000
"""Dead letters that are decided on in one commit."""
SINCE_EVER: Final = timedelta(days=36_500)


class ReplayActions:
    """Delivers recorded events to one consumer again."""

    def __init__(
        self,
        events: RecordedEvents,
        subscriptions: Subscriptions,
        wake_relay: Callable[[], None],
    ) -> None:
        self._events = events
        self._subscriptions = subscriptions
        self._wake_relay = wake_relay

    def now(self) -> datetime:
        """The time by the ledger's clock."""
        return self._events.now()

    def replay(self, wanted: EventRange, operation: RunningOperation) -> None:
        """Replay a range, slowly enough for the consumer's live events."""
        batch_size = self._subscriptions.consumers[wanted.consumer].batch_size
        operation.advance(0, self._events.count(wanted))
        pause = operation.pausing(time.sleep)
        replaying = Replay(self._events, self._wake_relay, pause=pause)
        for step in replaying.run(wanted, batch_size, REPLAYED_A_SECOND):
            operation.advance(step.replayed + step.left, left=step.left)

    @property
    def consumers(self) -> list[str]:
        """The consumers to which events can be replayed."""
        return sorted(self._subscriptions.consumers)

    def names_of(self, consumer: str) -> tuple[str, ...]:
        """The events that a consumer is subscribed to."""
        return self._subscriptions.events_of(consumer)


class IdentityActions:
    """Syncs, replays, deletes or erases the identity that a request is about.

    `kratos` may raise KratosNotConfigured, when it is called. Every method reports its progress to
    the operation, and raises what its use case raises.
    """

    def __init__(
        self,
        *,
        kratos: Callable[[], KratosAdmin],
        synced: SyncedIdentities,
        replaying: ReplayActions,
        deletions: Deletions,
        erasures: Erasures,
        wake_relay: Callable[[], None],
    ) -> None:
        self._kratos = kratos
        self._synced = synced
        self._replaying = replaying
        self._deletions = deletions
        self._erasures = erasures
        self._wake_relay = wake_relay

    @property
    def consumers(self) -> list[str]:
        """The consumers to which events can be replayed."""
        return self._replaying.consumers

    def sync(self, request: OperationRequest, operation: RunningOperation) -> None:
        """Fetch the identity from Kratos, and record it."""
        identity_id, counts = subject_of(request), Counter[str]()
        syncing = SyncIdentities(self._kratos(), self._synced, self._wake_relay)
        for done, each in enumerate(syncing.run([identity_id]), 1):
            counts[each.outcome.name.lower()] += 1
            if each.outcome is SyncOutcome.REFUSED:
                operation.ends_as = Outcome.FAILED
            operation.advance(done, 1, **counts)

    def replay(self, request: OperationRequest, operation: RunningOperation) -> None:
        """Deliver all events of the identity to the request's consumer again."""
        consumer, now = request.consumer or "", self._replaying.now()
        names = self._replaying.names_of(consumer)
        since = now - SINCE_EVER
        wanted = EventRange(consumer, names, since, now, subject_of(request))
        self._replaying.replay(wanted, operation)

    def delete(self, request: OperationRequest, operation: RunningOperation) -> None:
        """Have workers delete the identity here, and then in Kratos."""
        erase = request.scope.get("erase") is True
        event_id = self._deletions.request(subject_of(request), by=request.by, erase=erase)
        self._wake_relay()
        operation.advance(1, request=str(event_id))

    def erase(self, request: OperationRequest, operation: RunningOperation) -> None:
        """Erase what is recorded of the identity; a relay erases what is left by an error."""
        erasing = Erase(self._erasures, self._wake_relay, pause=operation.pausing(time.sleep))
        reason = request.reason or ""
        for erased in erasing.run(subject_of(request), by=request.by, reason=reason):
            operation.advance(erased.events, deliveries=erased.deliveries, texts=erased.texts)


class DeadLetterActions:
    """Retries or discards dead letters, step by step."""

    def __init__(self, decisions: DeadLetterDecisions, wake_relay: Callable[[], None]) -> None:
        self._decisions = decisions
        self._wake_relay = wake_relay

    def retry(
        self, request: OperationRequest, wanted: DeadLetterFilter, operation: RunningOperation
    ) -> None:
        """Make those that match pending again."""
        self._decide(self._decisions.retry(wanted, request.by, STEP), operation)
        self._wake_relay()

    def discard(
        self, request: OperationRequest, wanted: DeadLetterFilter, operation: RunningOperation
    ) -> None:
        """Remove those that match for good."""
        reason = request.reason or ""
        self._decide(self._decisions.discard(wanted, request.by, reason, STEP), operation)

    @staticmethod
    def _decide(steps: Iterator[int], operation: RunningOperation) -> None:
        done = 0
        for number in steps:
            done += number
            operation.advance(done)


class PolicyActions:
    """Pauses and resumes consumers."""

    def __init__(self, policies: ConsumerPolicies, wake_relay: Callable[[], None]) -> None:
        self._policies = policies
        self._wake_relay = wake_relay

    def pause(self, request: OperationRequest, operation: RunningOperation) -> None:
        """Deliver nothing to the request's consumer until it is resumed."""
        reason = request.reason or ""
        self._policies.pause(request.consumer or "", by=request.by, reason=reason)
        operation.advance(1)

    def resume(self, request: OperationRequest, operation: RunningOperation) -> None:
        """Deliver to the request's consumer again."""
        was_paused = self._policies.resume(request.consumer or "")
        self._wake_relay()
        operation.advance(int(was_paused))


class ReconcileActions:
    """Compares all identities with Kratos."""

    def __init__(self, reconcile: Callable[[Callable[[float], None]], Reconcile]) -> None:
        """`reconcile` takes how to pause; it may raise KratosNotConfigured."""
        self._reconcile = reconcile

    def compare(self, operation: RunningOperation) -> None:
        """Find what differs, and change nothing."""
        self._run(operation, dry_run=True, allow_deletes=0)

    def repair(self, allow_deletes: int, operation: RunningOperation) -> None:
        """Repair what differs; delete so many, or what is allowed anyway if that is more."""
        self._run(operation, dry_run=False, allow_deletes=allow_deletes)

    def _run(self, operation: RunningOperation, *, dry_run: bool, allow_deletes: int) -> None:
        reconcile = self._reconcile(operation.pausing(time.sleep))
        found = Findings()
        try:
            for run in reconcile.run(dry_run=dry_run, allow_deletes=allow_deletes):
                found = run.findings
                operation.advance(
                    found.identities,
                    found.held,
                    missing=found.missing,
                    stale=found.stale,
                    unlisted=found.unlisted,
                    deleted=found.deleted,
                )
        except DeletesRefused as error:
            operation.advance(found.identities, refused=str(error))
            raise


def subject_of(request: OperationRequest) -> UUID:
    """The identity that a request is about. Raises ValueError if it is about none."""
    if request.subject is None:
        raise ValueError(f"{request.operation} is about one identity")
    return request.subject
