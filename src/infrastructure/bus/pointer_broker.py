"""What relay, worker and status need of a broker, whichever it is."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import dramatiq

NAMESPACE = "kratos-sync"
"""What the names of our queues begin with, where others may have theirs.

A deployment adds an id of its own: see `infrastructure.ledger.deployment`.
"""


class BrokerUnavailable(Exception):
    """The broker is away, refuses, or did not answer in time; the reason is one word for a log."""


class Load(NamedTuple):
    """The messages of a queue: those that no worker has fetched, and those not acknowledged.

    The latter include the former; None where the broker does not tell them.
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
