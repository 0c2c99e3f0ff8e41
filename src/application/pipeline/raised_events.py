"""Publishing what the aggregates raised."""

from collections.abc import Iterator, Sequence

from application.pipeline.batch import Batch, CallNext
from application.ports.event_bus import Provenance
from application.ports.unit_of_work import Owed
from domain.events import DomainEvent


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


def _traces(raised: Sequence[DomainEvent], owed: Sequence[Owed]) -> Iterator[str | None]:
    # A fact is told with its cause's time: that tells two causes about one identity apart.
    of_cause = {(cause.subject, cause.occurred_at): cause.traceparent for cause in owed}
    of_subject = {cause.subject: cause.traceparent for cause in owed}
    for event in raised:
        otherwise = of_subject.get(event.subject)
        yield of_cause.get((event.subject, event.date_occurred), otherwise)
