"""Publishing what the aggregates raised."""

from application.pipeline.batch import Batch, CallNext
from application.ports.event_bus import Provenance


def publish_raised_events(batch: Batch, call_next: CallNext) -> None:
    """Record the raised events in the transaction that holds their cause's effects.

    An event carries on the trace of the one that caused it.
    """
    call_next(batch)
    traces = {delivery.subject: delivery.traceparent for delivery in batch.owed}
    batch.unit_of_work.record(
        [
            (event, Provenance(batch.consumer.name, traceparent=traces.get(event.subject)))
            for event in batch.unit_of_work.collect_events()
        ]
    )
