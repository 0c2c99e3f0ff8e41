"""What the parts of a process report of their work; by default it is discarded."""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, TypeAlias

from kratos_sync.application.pipeline.batch import Batch, CallNext, Middleware, Result
from kratos_sync.application.ports.dead_letters import FailedAttempt
from kratos_sync.application.ports.purge import Removed
from kratos_sync.infrastructure.observability.definitions import Metric
from kratos_sync.infrastructure.observability.dependencies import Dependency
from kratos_sync.infrastructure.observability.http_server import Route

Reading: TypeAlias = float | Mapping[tuple[str, ...], float]
"""The value of a metric, or a value for each combination of its labels' values, in their order."""


class Observer:
    """Knows when each loop of the process last turned, and nothing else.

    A subclass counts. It is quick, raises nothing, and any thread may call it.
    """

    def __init__(self) -> None:
        self._turned_at: dict[str, float] = {}

    @property
    def is_counting(self) -> bool:
        """Whether metrics are exported."""
        return False

    def turned(self, loop: str) -> None:
        """A loop has turned once more; its name is that of the process that has no other one."""
        self._turned_at[loop] = monotonic()

    def age_of(self, loop: str) -> float:
        """The seconds since the loop last turned; 0 before it began."""
        now = monotonic()
        return now - self._turned_at.get(loop, now)

    def ledger_unavailable(self) -> None:
        """PostgreSQL could not be used."""

    def broker_unavailable(self) -> None:
        """The broker could not be used."""

    def committed(self, events: int) -> None:
        """Webhooks' events were recorded in one commit."""

    def dispatched(self, consumer: str, deliveries: int) -> None:
        """Deliveries were sent to the broker."""

    def leases_expired(self, consumer: str, deliveries: int) -> None:
        """Leases ran out, or their messages were lost."""

    def purged(self, removed: Removed) -> None:
        """A purge removed rows."""

    def delivered(self, batch: Batch, result: Result) -> None:
        """A batch, or a part of one, was tried once: this became of it."""

    def attempt_lost(self, attempt: FailedAttempt) -> None:
        """An attempt was recorded whose thread or process did not come back."""

    def kratos_answered(self, operation: str, status: int | None, seconds: float) -> None:
        """A request to Kratos has ended; without a status there was no answer."""

    def circuit(self, *, is_open: bool) -> None:
        """The circuit of requests to Kratos was opened or closed."""

    def webhooks(self, endpoint: str) -> Callable[[str, float], None] | None:  # noqa: ARG002
        """Return what is to be called after each call of an endpoint, with its result and seconds.

        From one thread only. None if nobody listens.
        """
        return None

    def watch(self, metric: Metric, read: Callable[[], Reading]) -> None:
        """Export what `read` returns whenever metrics are read."""

    @property
    def routes(self) -> Mapping[str, Route]:
        """What is served about it on the process' port."""
        return {}

    def watch_ledger(self, check: Callable[[], None]) -> None:
        """From now on, check every few seconds whether PostgreSQL can be used."""

    def watch_broker(self, check: Callable[[], None]) -> None:
        """The same for the broker."""

    @property
    def dependencies(self) -> Mapping[str, Dependency]:
        """What is checked, by name: ``database`` and ``broker``."""
        return {}


UNOBSERVED: Final = Observer()


def reporting(observer: Observer) -> Middleware:
    """Make an observer of the pipeline that reports every batch that was tried."""

    def observe(call_next: CallNext, batch: Batch) -> Result:
        result = call_next(batch)
        observer.delivered(batch, result)
        return result

    return observe
