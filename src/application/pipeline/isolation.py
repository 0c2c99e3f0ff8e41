"""Keeping one event's failure from its neighbours."""

from application.pipeline.batch import FAILURES, Batch, CallNext
from application.ports.event_bus import LedgerUnavailable


def isolate_poison(batch: Batch, call_next: CallNext) -> None:
    """Run a batch that failed again, by halves, so that in the end only the poison fails."""
    try:
        call_next(batch)
    except LedgerUnavailable:
        raise
    except FAILURES:
        size = len(batch.event_ids)
        if size == 1:
            raise
        isolate_poison(batch.part(0, size // 2), call_next)
        isolate_poison(batch.part(size // 2, size), call_next)
