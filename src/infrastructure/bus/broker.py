"""What relay, worker and status need of a broker, and the broker for a URL."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import dramatiq
from pydantic import SecretStr

from kratos_sync.application.ports.status import BrokerStatus
from kratos_sync.infrastructure.bus.urls import IN_MEMORY
from kratos_sync.infrastructure.postgres.connection_failures import DATABASE_ERRORS, missing_right

if TYPE_CHECKING:
    from kratos_sync.infrastructure.bus.memory import MemoryBroker
    from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker
    from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker

    DramatiqBroker: TypeAlias = WakefulRedisBroker | ConfirmingRabbitmqBroker | MemoryBroker
    """A PointerBroker that Dramatiq's workers consume from."""

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


class BrokerOutOfReach(BrokerUnavailable):
    """The broker cannot be asked from this process, and may well work."""


class QueuesUnknown(BrokerOutOfReach):
    """Our role may not read the id of this deployment, which is part of the queues' names."""


class BrokerNotShared(Exception):
    """A relay and a worker of their own need a broker that they share."""


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

    def work_as(self, name: str, *, predecessor_died: bool) -> None:
        """Be the worker of this name; take over what one before it had fetched."""

    def close(self) -> None:
        """Close the connections."""


def connect(url: SecretStr, namespace: str = NAMESPACE) -> "DramatiqBroker":
    """Make a broker for a URL; one of Redis or RabbitMQ connects when it is first used."""
    # Only the client that is used is imported.
    if is_in_memory(url):
        from kratos_sync.infrastructure.bus.memory import MemoryBroker

        return MemoryBroker()
    if url.get_secret_value().startswith("amqp"):
        from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker

        return ConfirmingRabbitmqBroker.at(url, namespace)
    from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker

    return WakefulRedisBroker.at(url, namespace)


def is_in_memory(url: SecretStr) -> bool:
    """Whether the broker is in the memory of the process that uses it."""
    return url.get_secret_value() == IN_MEMORY


def require_shared(url: SecretStr) -> None:
    """Raise BrokerNotShared for a broker that processes do not share."""
    if is_in_memory(url):
        raise BrokerNotShared(
            "A relay and a worker share a broker: set BROKER_URL to a Redis or a RabbitMQ."
            " Only `kratos-sync all` needs none."
        )


class AskedBroker(Protocol):
    """What `status` asks of a broker."""

    def waiting(self, queue_names: Sequence[str], seconds: float) -> Mapping[str, int]:
        """As PointerBroker does."""


class SharedBrokerToAsk:
    """A shared broker, to which `connect` leads when it is first asked."""

    def __init__(self, connect: "Callable[[], DramatiqBroker]") -> None:
        self._connect = connect
        self._broker: DramatiqBroker | None = None

    def waiting(self, queue_names: Sequence[str], seconds: float) -> Mapping[str, int]:
        """As PointerBroker does. Also raises QueuesUnknown, or what `connect` raises."""
        try:
            self._broker = self._connect()
        except DATABASE_ERRORS as error:
            if (missing := missing_right(error)) is None:
                raise
            raise QueuesUnknown(missing) from error
        return self._broker.waiting(queue_names, seconds)

    def close(self) -> None:
        """Close the connections, if there are any."""
        if self._broker is not None:
            self._broker.close()


def broker_status(broker: AskedBroker, consumers: Sequence[str]) -> BrokerStatus:
    """Count the messages that no worker has fetched yet, or say why they cannot be counted."""
    try:
        return BrokerStatus(broker.waiting(consumers, TIMEOUT_SECONDS))
    except QueuesUnknown as error:
        return BrokerStatus({}, str(error), is_asked=False)
    except BrokerOutOfReach:
        return BrokerStatus({}, is_asked=False)
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
