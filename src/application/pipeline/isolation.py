"""Keeps one event's failure from the other events of its batch."""

from collections.abc import Sequence
from uuid import UUID

from kratos_sync.application.pipeline.batch import Batch, CallNext, Result
from kratos_sync.application.ports.unit_of_work import PendingDelivery


def isolate_failures(call_next: CallNext, batch: Batch) -> Result:
    """Run a failed batch again in halves, until only the failing event has failed.

    A batch whose inbox could not be opened is not split. If one event was interrupted, the others
    run without it. Quarantined events run last, each alone. All parts run, and the result has the
    first error that could not be recorded.
    """
    result = call_next(batch)
    if result.error is None:
        parts: list[Sequence[UUID]] = [[event_id] for event_id in result.quarantined]
    elif len(batch.event_ids) == 1 or not result.is_open:
        return result
    else:
        parts = _parts(batch.event_ids, result.interrupted)
    of_parts = [isolate_failures(call_next, batch.part(part)) for part in parts]
    results = [result, *of_parts] if result.error is None else of_parts
    failed = [] if result.error is None else result.failed
    return Result(
        result.started,
        result.is_open,
        succeeded=[each for one in results for each in one.succeeded],
        failed=[*failed, *(each for one in results for each in one.failed)],
        unprocessed=[each for one in results for each in one.unprocessed],
        later=[each for one in results for each in one.later],
        error=next((one.error for one in results if one.error is not None), None),
        seconds=sum([one.seconds for one in of_parts], result.seconds),
    )


def _parts(ids: Sequence[UUID], interrupted: PendingDelivery | None) -> list[Sequence[UUID]]:
    if interrupted is not None:
        return [[each for each in ids if each != interrupted.event_id]]
    return [ids[: len(ids) // 2], ids[len(ids) // 2 :]]
