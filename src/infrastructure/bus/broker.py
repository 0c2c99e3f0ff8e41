"""What relay, worker and status need of a broker, whichever it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import dramatiq

NAMESPACE = "kratos-sync"
"""What the names of our queues begin with, where others may have theirs.

A deployment adds an id of its own: see `infrastructure.container`.
"""


class BrokerUnavailable(Exception):
    """The broker is away, refuses, or did not answer in time; the reason is one word for a log."""


class Load(NamedTuple):
    """The messages of a queue: those that no worker has fetched, and those not acknowledged.

    The latter include the former; None where the broker does not count them.
    """

    waiting: int
    unacknowledged: int | None


class PointerBroker(Protocol):
    """Carries messages from the relay to workers, and may lose them: they are only pointers.

    No call lasts longer than ten seconds or so, whatever the broker does.
    """

    def enqueue_many(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """Hand over messages; when this returns the broker has confirmed each of them.

        Raises BrokerUnavailable; some of them may be there then.
        """

    def load(self, queue_name: str) -> Load:
        """Count the messages of a queue. Raises BrokerUnavailable."""

    def waiting(self, queue_names: Sequence[str], seconds: float) -> Mapping[str, int]:
        """Count what no worker has fetched, in so many seconds for each answer, and asked once.

        Raises BrokerUnavailable, also where the broker would take no messages now.
        """

    def ping(self) -> None:
        """Return if the broker would take messages now. Raises BrokerUnavailable."""

    def close(self) -> None:
        """Let go of the connections."""


Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Share(Generic[Key]):
    """A queue's share of a worker: what its threads have in flight, and how much that may be.

    The same ``in_flight`` goes from a consumer that lost its connection to the one that follows.
    """

    queue_name: str
    most: int
    in_flight: set[Key]

    @property
    def room(self) -> int:
        """How many messages more may be taken."""
        return max(self.most - len(self.in_flight), 0)


def bounded(prefetch: int) -> int:
    """Turn the two for each thread that Dramatiq asks for into one for each thread but one.

    So a consumer that hangs never takes all threads of a worker from the others. One message is a
    whole batch, and those that waited here would be missed by a worker next door.
    """
    return max(prefetch // 2 - 1, 1)
