"""The steps between a message and its consumer; the commit is the last."""

from collections.abc import Callable
from functools import partial

from kratos_sync.application.pipeline.batch import Batch, CallNext, Middleware, Result, bound_memory
from kratos_sync.application.pipeline.consuming import consume
from kratos_sync.application.pipeline.outcomes import (
    isolate_failures,
    log_outcome,
    record_failure,
    retry_conflicts,
)
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


Deliver = Callable[[Batch], Result]


def pipeline(*observers: Middleware) -> Deliver:
    """Make the function that delivers a batch to its consumer, and records what fails.

    It raises LedgerUnavailable, an error that is not a consumer's, and one that cannot be recorded.
    The observers are around each try of a batch, or of a part of it, with the recording of its
    failure: they see what was committed, and see it once.
    """
    isolating, *others = PIPELINE
    run = compose((isolating, *observers, *others), consume)

    def deliver(batch: Batch) -> Result:
        result = run(batch)
        if result.error is not None:
            raise result.error
        return result

    return deliver


deliver: Deliver = pipeline()

__all__ = [
    "PIPELINE",
    "Batch",
    "CallNext",
    "Deliver",
    "Middleware",
    "Result",
    "compose",
    "deliver",
    "pipeline",
]
