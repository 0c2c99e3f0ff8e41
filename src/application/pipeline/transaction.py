"""The transaction around a batch."""

from datetime import timedelta
from typing import Final

from application.pipeline.batch import Batch, CallNext

SHORTEST_LIMIT: Final = timedelta(seconds=10)
"""What a statement around the events may take at least: a slow database is no consumer's fault."""


def commit_transaction(batch: Batch, call_next: CallNext) -> None:
    """Commit once everything inside has returned; a failing commit is a failed attempt."""
    with batch.unit_of_work.begin(max(batch.consumer.time_limit, SHORTEST_LIMIT)):
        call_next(batch)
        batch.unit_of_work.commit()
