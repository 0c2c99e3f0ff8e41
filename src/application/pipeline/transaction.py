"""The transaction around a batch."""

from application.pipeline.batch import Batch, CallNext


def commit_transaction(batch: Batch, call_next: CallNext) -> None:
    """Commit once everything inside has returned; a failing commit is a failed attempt."""
    with batch.unit_of_work.begin(batch.consumer.time_limit):
        call_next(batch)
        batch.unit_of_work.commit()
