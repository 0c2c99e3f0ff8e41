"""The transaction around a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final
from uuid import UUID

from kratos_sync.application.footprint import SET_ASIDE_FOR
from kratos_sync.application.pipeline.batch import FAILURES, Batch, CallNext, Result, Start
from kratos_sync.application.ports.event_bus import LedgerUnavailable, Provenance
from kratos_sync.application.ports.unit_of_work import PendingDelivery
from kratos_sync.domain.events import EVENTS, DomainEvent

SHORTEST_LIMIT: Final = timedelta(seconds=10)
"""The least that a statement may take: a slow database is not the consumer's failure."""


def commit_transaction(call_next: CallNext, batch: Batch) -> Result:
    """Commit once everything inside has returned; a failing commit is a failed attempt.

    A result's error is raised inside the transaction, which finds out whether the ledger is away.
    """
    result = Result(batch.started)
    try:
        with batch.unit_of_work.begin(max(batch.consumer.time_limit, SHORTEST_LIMIT)):
            result = call_next(batch)
            if result.error is not None:
                raise result.error
            batch.unit_of_work.commit()
    except LedgerUnavailable:
        raise
    except FAILURES as error:
        return result.rolled_back(error, result.interrupted)
    return result


def open_inbox(call_next: CallNext, batch: Batch) -> Result:
    """Consume what is pending, except quarantined deliveries, and settle it in one transaction."""
    started = Start.now()
    pending = _pending(batch)
    quarantined: list[UUID] = []
    if len(batch.event_ids) > 1:
        quarantined = [delivery.event_id for delivery in pending if delivery.is_quarantined]
        pending = [delivery for delivery in pending if not delivery.is_quarantined]
    opened = replace(batch, deliveries=pending, started=started)
    batch.watch.opened(pending)
    batch.trace.opened(pending)
    later = () if batch.admission is None else batch.admission.later
    result = Result(started, is_open=True, unprocessed=pending, quarantined=quarantined)
    if not pending:
        return replace(result, later=later)
    try:
        result = call_next(opened)
        result = replace(result, quarantined=[*quarantined, *result.quarantined], later=later)
        if result.error is None:
            _settle(opened, result)
    except FAILURES as error:
        return result.rolled_back(error)
    return result


def _pending(batch: Batch) -> list[PendingDelivery]:
    """Open what is pending and can be consumed now; postpone the rest.

    Postponed are events that this release does not know or has no subscription for (another
    release may), and large ones that do not fit into memory now.
    """
    inbox, name, admission = batch.unit_of_work.inbox, batch.consumer.name, batch.admission
    pending = inbox.open(name, batch.event_ids, admission)
    if admission is not None and admission.left:
        inbox.set_aside(name, admission.left, SET_ASIDE_FOR if admission.must_wait else timedelta())
    known = EVENTS.keys() if batch.events is None else EVENTS.keys() & batch.events
    unknown = {each.name for each in pending} - known
    for event in unknown:
        waiting = [delivery.event_id for delivery in pending if delivery.name == event]
        what = f"{event} for {name}" if event in EVENTS else event
        inbox.postpone(name, waiting, f"UnknownEvent: {what}")
    return [delivery for delivery in pending if delivery.name not in unknown]


def _settle(batch: Batch, result: Result) -> None:
    inbox, name = batch.unit_of_work.inbox, batch.consumer.name
    if result.succeeded:
        inbox.settle(name, result.succeeded, batch.started.at, batch.started.elapsed)
        if batch.consumer.ordered:
            inbox.wake_next(name, {delivery.subject for delivery in result.succeeded})
    if result.failed:
        inbox.fail([failure.attempt for failure in result.failed])
    if result.unprocessed:
        inbox.release(name, [delivery.event_id for delivery in result.unprocessed])


def publish_raised_events(call_next: CallNext, batch: Batch) -> Result:
    """Record the raised events in the transaction of their causes, each with a trace context."""
    result = call_next(batch)
    if result.error is not None:
        return result
    raised = batch.unit_of_work.collect_events()
    batch.unit_of_work.record(
        [
            (event, Provenance(batch.consumer.name, traceparent=batch.trace.context_after(cause)))
            for event, cause in zip(raised, _causes(raised, result.succeeded), strict=True)
        ]
    )
    return result


def _causes(
    raised: Sequence[DomainEvent], causes: Sequence[PendingDelivery]
) -> Iterator[str | None]:
    """The trace context of each raised event's cause."""
    # A raised event has the time of its cause: that tells two causes about one identity apart.
    of_cause = {(cause.subject, cause.occurred_at): cause.traceparent for cause in causes}
    of_subject = {cause.subject: cause.traceparent for cause in causes}
    for event in raised:
        otherwise = of_subject.get(event.subject)
        yield of_cause.get((event.subject, event.date_occurred), otherwise)
