"""Keeping one event's failure from its neighbours."""

from collections.abc import Sequence
from uuid import UUID

from application.pipeline.batch import FAILURES, Batch, CallNext
from application.ports.event_bus import LedgerUnavailable


def isolate_poison(batch: Batch, call_next: CallNext) -> None:
    """Run a batch that failed again, by halves, so that in the end only the poison fails.

    One whose inbox could not be opened is not split: that is no fault of its events. Where it is
    known which event the consumer was interrupted at, the others run without it; and those that are
    suspected of harm to the worker run after the others, each alone. A part whose failure cannot be
    recorded keeps no other part from running: that is raised at the end.
    """
    ids = batch.event_ids
    parts: list[Sequence[UUID]]
    try:
        call_next(batch)
        parts = [[suspect] for suspect in batch.suspects]
    except LedgerUnavailable:
        raise
    except FAILURES:
        if len(ids) == 1 or not batch.is_open:
            raise
        parts = _parts(batch)
    # Outside: what fails while an error is handled would quote it, and that is another person's.
    unrecorded = [error for part in parts if (error := _run(batch.of(part), call_next)) is not None]
    if unrecorded:
        raise unrecorded[0]


def _run(part: Batch, call_next: CallNext) -> BaseException | None:
    try:
        isolate_poison(part, call_next)
    except LedgerUnavailable:
        raise
    except FAILURES as error:
        return error
    return None


def _parts(batch: Batch) -> list[Sequence[UUID]]:
    ids = batch.event_ids
    if batch.interrupted_at is not None:
        return [[each for each in ids if each != batch.interrupted_at.event_id]]
    return [ids[: len(ids) // 2], ids[len(ids) // 2 :]]
