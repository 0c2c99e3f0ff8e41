"""The way of a batch of deliveries to its consumer and back; commit is the last thing."""

from functools import partial

from kratos_sync.application.pipeline.batch import Batch, CallNext, Middleware, bound_memory
from kratos_sync.application.pipeline.isolation import consume, isolate_failures
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
        call = partial(_wrapped, middleware, call)
    return call


def _wrapped(middleware: Middleware, call_next: CallNext, batch: Batch) -> None:
    middleware(batch, call_next)


deliver: CallNext = compose(PIPELINE, consume)
"""Bring a batch to its consumer; what that raises is written down. Raises LedgerUnavailable."""

__all__ = ["PIPELINE", "Batch", "compose", "deliver"]
