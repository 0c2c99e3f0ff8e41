"""Bounding the memory that open batches take."""

from application.pipeline.batch import Batch, CallNext


def bound_memory(batch: Batch, call_next: CallNext) -> None:
    """Count a batch as open until its transaction has ended: storing takes as much as reading."""
    with batch.open_batches.admission() as batch.admission:
        call_next(batch)
