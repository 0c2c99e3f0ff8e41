"""What a consumer is, and the policy of its deliveries."""

from datetime import timedelta
from typing import ClassVar, Final, Protocol, TypeVar

from kratos_sync.domain.events import DomainEvent

SHORTEST_DELAY: Final = timedelta(seconds=1)
LONGEST_DELAY: Final = timedelta(days=365)

Event_contra = TypeVar("Event_contra", bound=DomainEvent, contravariant=True)


class RetryLater(Exception):
    """Raised by a consumer that wants the event again, after a delay from a second to a year.

    That is no failure: no attempt is counted, and what the consumer did until then is undone.
    """

    def __init__(self, delay: timedelta) -> None:
        super().__init__(f"asked to be run again in {delay}")
        self.delay = min(max(delay, SHORTEST_DELAY), LONGEST_DELAY)


class Consumer(Protocol[Event_contra]):
    """A reaction to one kind of event: loads, tells, returns, and never commits.

    Inherit to take over the policy's defaults, and override what should differ. ``name`` stands in
    the ledger and in messages: a renamed consumer leaves behind what it is owed by its old name. A
    consumer with effects outside the database says ``batch_size = 1``, and passes the event's id
    on as idempotency key: such effects happen at least once. A consumer keeps nothing in itself
    from one event to the next: what one did through its ports may be undone without the others'.
    """

    name: ClassVar[str]
    batch_size: ClassVar[int] = 200
    """Events that may share one transaction."""
    max_attempts: ClassVar[int] = 12
    """Attempts before a delivery becomes a dead letter; with the backoff below, some hours."""
    first_backoff: ClassVar[timedelta] = timedelta(seconds=1)
    """The wait after the first failure; it doubles with each further one."""
    longest_backoff: ClassVar[timedelta] = timedelta(hours=1)
    gives_up_on: ClassVar[tuple[type[BaseException], ...]] = ()
    """Errors that no later attempt can mend: a dead letter at once."""
    time_limit: ClassVar[timedelta] = timedelta(seconds=20)
    """How long one event may take, and any one SQL statement.

    A batch that has taken as long begins no further event. Whoever takes longer is interrupted by
    ``TimeLimitExceeded``; a thread that does not come back is given up, with its process.
    """

    def consume(self, event: Event_contra) -> None:
        """React to the event; whatever is raised makes this a failed attempt."""
