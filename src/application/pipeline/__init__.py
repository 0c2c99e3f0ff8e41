"""The steps between a message and its consumer; the commit is the last."""

from functools import partial

from kratos_sync.application.pipeline.batch import Batch, CallNext, Middleware, Result, bound_memory
from kratos_sync.application.pipeline.consuming import consume
from kratos_sync.application.pipeline.isolation import isolate_failures
from kratos_sync.application.pipeline.logging import log_outcome
from kratos_sync.application.pipeline.retries import record_failure, retry_conflicts
from kratos_sync.application.pipeline.transaction import (
    commit_transaction,
    open_inbox,
    publish_raised_events,
)

PIPELINE: tuple[Middleware, ...] = (
    isolate_failures,
    record_failure,
    retry_conflicts,
    log_outcome,
    bound_memory,
    commit_transaction,
    open_inbox,
    publish_raised_events,
)


def compose(middlewares: tuple[Middleware, ...], core: CallNext) -> CallNext:
    """Wrap the core in the middlewares, the first outermost."""
    call = core
    for middleware in reversed(middlewares):
        call = partial(middleware, call)
    return call


_run: CallNext = compose(PIPELINE, consume)


def deliver(batch: Batch) -> Result:
    """Deliver a batch to its consumer, and record what fails.

    Raises LedgerUnavailable, an error that is not a consumer's, and one that cannot be recorded.
    """
    result = _run(batch)
    if result.error is not None:
        raise result.error
    return result


__all__ = ["PIPELINE", "Batch", "Result", "compose", "deliver"]
