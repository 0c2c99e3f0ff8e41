"""What relay, worker and status need of a broker, and the broker for a URL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeVar

import dramatiq
from pydantic import SecretStr

from kratos_sync.application.ports.status import BrokerStatus

if TYPE_CHECKING:
    from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker
    from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker

NAMESPACE = "kratos-sync"
"""The prefix of our queues' names; a deployment adds its id (`infrastructure.container`)."""
TIMEOUT_SECONDS: Final = 1.0


class BrokerUnavailable(Exception):
    """The broker is away, refuses, or did not answer in time; the reason is short, for a log."""


LEAST: Final = {"Redis": (7, 0), "RabbitMQ": (3, 10)}
"""The oldest versions that are tested. Valkey says which Redis it is compatible with."""


def require_version(product: str, found: str) -> None:
    """Raise BrokerUnavailable for a server that is too old; one that says nothing is used."""
    numbers = tuple(int(each) for each in found.split(".")[:2] if each.isdecimal())
    if numbers and numbers < LEAST[product]:
        least = ".".join(map(str, LEAST[product]))
        raise BrokerUnavailable(f"{product} {found} is too old: {least} is the oldest that will do")


class Load(NamedTuple):
    """The messages of a queue: those that no worker has fetched, and all unacknowledged ones.

    The latter is None where the broker does not count them.
    """

    waiting: int
    unacknowledged: int | None


class PointerBroker(Protocol):
    """Carries messages from the relay to workers, and may lose them: they are only pointers.

    No call lasts longer than about ten seconds. Every method raises BrokerUnavailable.
    """

    def enqueue_many(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """Enqueue messages; the broker has confirmed each of them when this returns.

        Some of them may be there also if this raises.
        """

    def load(self, queue_name: str) -> Load:
        """Count the messages of a queue."""

    def waiting(self, queue_names: Sequence[str], seconds: float) -> Mapping[str, int]:
        """Count the messages that no worker has fetched; each answer may take so many seconds.

        Also raises BrokerUnavailable if the broker accepts no messages now.
        """

    def ping(self) -> None:
        """Return if the broker accepts messages now."""

    def close(self) -> None:
        """Close the connections."""


def connect(
    url: SecretStr, namespace: str = NAMESPACE
) -> "WakefulRedisBroker | ConfirmingRabbitmqBroker":
    """Make a broker for a URL of Redis or RabbitMQ; it connects when it is first used."""
    # Only the client that is used is imported.
    if url.get_secret_value().startswith("amqp"):
        from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker

        return ConfirmingRabbitmqBroker.at(url, namespace)
    from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker

    return WakefulRedisBroker.at(url, namespace)


def broker_status(broker: PointerBroker, consumers: Sequence[str]) -> BrokerStatus:
    """Count the messages that no worker has fetched yet, or say why they cannot be counted."""
    try:
        return BrokerStatus(broker.waiting(consumers, TIMEOUT_SECONDS))
    except BrokerUnavailable as error:
        return BrokerStatus({}, str(error))


Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Share(Generic[Key]):
    """A queue's share of a worker: what its threads have in flight, and how much that may be.

    A consumer that replaces one with a lost connection continues with the same ``in_flight``.
    """

    queue_name: str
    most: int
    in_flight: set[Key]

    @property
    def room(self) -> int:
        """How many more messages may be taken."""
        return max(self.most - len(self.in_flight), 0)


def bounded(prefetch: int) -> int:
    """Turn Dramatiq's prefetch, two messages for each thread, into one for each thread but one.

    So a consumer that hangs never takes all threads of a worker. A message is a whole batch, and
    one that waits here would be missing in another worker.
    """
    return max(prefetch // 2 - 1, 1)
