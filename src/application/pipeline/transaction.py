"""The transaction around a batch."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from kratos_sync.application.footprint import SET_ASIDE_FOR
from kratos_sync.application.pipeline.batch import Batch, CallNext
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.application.subscriptions import takes
from kratos_sync.domain.events import EVENTS, DomainEvent

SHORTEST_LIMIT: Final = timedelta(seconds=10)
"""What a statement around the events may take at least: a slow database is no consumer's fault."""


def commit_transaction(batch: Batch, call_next: CallNext) -> None:
    """Commit once everything inside has returned; a failing commit is a failed attempt."""
    with batch.unit_of_work.begin(max(batch.consumer.time_limit, SHORTEST_LIMIT)):
        call_next(batch)
        batch.unit_of_work.commit()


def open_inbox(batch: Batch, call_next: CallNext) -> None:
    """Consume what is still owed, and settle it in the same transaction.

    An event that this release does not know is given back: a newer release may know it. So is one
    that the consumer is not subscribed to here, whoever had it delivered, and what there is no
    memory for at the same time.
    """
    batch.begin()
    inbox, name = batch.unit_of_work.inbox, batch.consumer.name
    owed = inbox.open(name, batch.event_ids, batch.admission)
    batch.is_open = True
    if batch.admission is not None and batch.admission.left:
        wait = SET_ASIDE_FOR if batch.admission.must_wait else timedelta()
        inbox.set_aside(name, batch.admission.left, wait)
    unknown = {event for event in {each.name for each in owed} if not takes(name, event)}
    for event in unknown:
        waiting = [delivery.event_id for delivery in owed if delivery.name == event]
        known = f"{event} for {name}" if event in EVENTS else event
        inbox.postpone(name, waiting, f"UnknownEvent: {known}")
    batch.owed = [delivery for delivery in owed if delivery.name not in unknown]
    if len(batch.event_ids) > 1:
        batch.suspects = [delivery.event_id for delivery in batch.owed if delivery.is_suspect]
        if batch.suspects:
            batch.owed = [delivery for delivery in batch.owed if not delivery.is_suspect]
    batch.watch.opened(batch.owed)
    if batch.owed:
        call_next(batch)
        if healthy := batch.healthy:
            inbox.settle(name, healthy, batch.started_at, batch.duration)
        if batch.failed:
            inbox.fail([failure.attempt for failure in batch.failed])
        if batch.left:
            inbox.release(name, [delivery.event_id for delivery in batch.left])


def publish_raised_events(batch: Batch, call_next: CallNext) -> None:
    """Record the raised events in the transaction that holds their cause's effects.

    An event carries on the trace of the one that caused it.
    """
    call_next(batch)
    raised = batch.unit_of_work.collect_events()
    batch.unit_of_work.record(
        [
            (event, Provenance(batch.consumer.name, traceparent=trace))
            for event, trace in zip(raised, _traces(raised, batch.owed), strict=True)
        ]
    )


def _traces(raised: Sequence[DomainEvent], owed: Sequence[PendingDelivery]) -> Iterator[str | None]:
    # A fact is told with its cause's time: that tells two causes about one identity apart.
    of_cause = {(cause.subject, cause.occurred_at): cause.traceparent for cause in owed}
    of_subject = {cause.subject: cause.traceparent for cause in owed}
    for event in raised:
        otherwise = of_subject.get(event.subject)
        yield of_cause.get((event.subject, event.date_occurred), otherwise)
