"""What a consumer is, and the policy of its deliveries."""

import inspect
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, ClassVar, Final, Protocol, TypeVar

from kratos_sync.domain.events import DomainEvent

SHORTEST_DELAY: Final = timedelta(seconds=1)
LONGEST_DELAY: Final = timedelta(days=365)

Event_contra = TypeVar("Event_contra", bound=DomainEvent, contravariant=True)


class RetryLater(Exception):
    """Raised by a consumer to get the event again after a delay, of a second to a year.

    No attempt is counted, and what the consumer did until then is rolled back.
    """

    delay: timedelta = SHORTEST_DELAY
    """For a subclass with a constructor of its own that sets none."""

    def __init__(self, delay: timedelta) -> None:
        super().__init__(f"asked to be run again in {delay}")
        self.delay = _in_bounds(delay)


def delay_of(error: BaseException) -> timedelta | None:
    """The delay that an error asks for, in its bounds, whoever set it; None if it asks for none."""
    delay: object = getattr(error, "delay", None) if isinstance(error, RetryLater) else None
    return _in_bounds(delay) if isinstance(delay, timedelta) else None


def _in_bounds(delay: timedelta) -> timedelta:
    return min(max(delay, SHORTEST_DELAY), LONGEST_DELAY)


class Consumer(Protocol[Event_contra]):
    """A reaction to events: loads an aggregate, calls it, and returns. It never commits.

    Subclasses override the defaults of the policy below. Effects in the database happen exactly
    once; for effects outside of it, which happen at least once, set ``batch_size = 1`` or write an
    ``async def consume``, and pass the event's id as idempotency key. Keep no state between events:
    one event of a batch may be rolled back alone.
    """

    name: ClassVar[str]
    """The name in the ledger and in messages. Renaming a consumer orphans its deliveries."""
    batch_size: ClassVar[int] = 200
    """Events that may share one transaction.

    With 1 another event's failure never rolls back an event. Events that begin within a tenth of a
    second are still committed together: only the end of the process, or of the connection, may
    repeat them together. An async consumer consumes a batch at once.
    """
    max_attempts: ClassVar[int] = 12
    """Attempts before a delivery becomes a dead letter; with the backoff below, some hours."""
    first_backoff: ClassVar[timedelta] = timedelta(seconds=1)
    """The wait after the first failure; it doubles with each further one."""
    longest_backoff: ClassVar[timedelta] = timedelta(hours=1)
    gives_up_on: ClassVar[tuple[type[BaseException], ...]] = ()
    """Errors that a retry cannot fix: the delivery becomes a dead letter at once."""
    ordered: ClassVar[bool] = False
    """Events about one identity come one after another, in the order they were recorded.

    They wait while an earlier one fails or is a dead letter; other identities go on.
    """
    skips_dead_letters: ClassVar[bool] = False
    """If ordered: the events after a dead letter do not wait for it."""
    rate: ClassVar[str | None] = None
    """The most events in a time, over all workers: ``100/minute``. None for no limit."""
    concurrency: ClassVar[int | None] = None
    """The most events consumed at once, over all workers: each then has its own transaction."""
    time_limit: ClassVar[timedelta] = timedelta(seconds=20)
    """The longest that one event, or one SQL statement, may take.

    A batch begins no further event after that time. A consumer that takes longer is interrupted by
    ``TimeLimitExceeded``; if that does not help, its process is replaced.
    """

    def consume(self, event: Event_contra) -> Awaitable[None] | None:
        """React to the event; may be an ``async def``. Any exception makes this a failed attempt.

        An async consumer waits for other services, with many events at once. It has no ports in
        the transaction, and must not block its thread.
        """


def is_async(consumer: type[Consumer[Any]]) -> bool:
    """Whether its ``consume`` is an ``async def``."""
    return inspect.iscoroutinefunction(consumer.consume)
