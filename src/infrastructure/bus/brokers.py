"""Which broker a URL stands for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from kratos_sync.application.ports.status import BrokerStatus
from kratos_sync.infrastructure.bus.broker import NAMESPACE, BrokerUnavailable, PointerBroker
from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker

if TYPE_CHECKING:
    from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker


def connect(
    url: SecretStr, namespace: str = NAMESPACE
) -> "WakefulRedisBroker | ConfirmingRabbitmqBroker":
    """Make a broker for a URL of Redis or RabbitMQ; it connects when it is first used."""
    if url.get_secret_value().startswith("amqp"):
        from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker

        return ConfirmingRabbitmqBroker.at(url, namespace)
    return WakefulRedisBroker.at(url, namespace)


TIMEOUT_SECONDS: Final = 1.0


def broker_status(broker: PointerBroker, consumers: Sequence[str]) -> BrokerStatus:
    """Count the messages that no worker has fetched yet; a broker that is away is an answer too."""
    try:
        return BrokerStatus(broker.waiting(consumers, TIMEOUT_SECONDS))
    except BrokerUnavailable as error:
        return BrokerStatus({}, str(error))
