"""Keeping one event's failure from its neighbours."""

from application.pipeline.batch import Batch, CallNext
from application.ports.event_bus import LedgerUnavailable


def isolate_poison(batch: Batch, call_next: CallNext) -> None:
    """Run a batch that failed again, one event at a time, so that only the poison fails."""
    try:
        call_next(batch)
    except LedgerUnavailable:
        raise
    except (Exception, SystemExit):  # a consumer that asks to exit fails, and takes nobody along
        if len(batch.event_ids) == 1:
            raise
        for event_id in batch.event_ids:
            call_next(batch.only(event_id))
