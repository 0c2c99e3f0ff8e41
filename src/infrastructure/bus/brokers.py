"""The broker that a URL stands for, and what `status` shows of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from kratos_sync.application.ports.status import BrokerStatus
from kratos_sync.infrastructure.bus.broker import NAMESPACE, BrokerUnavailable, PointerBroker

if TYPE_CHECKING:
    from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker
    from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker

TIMEOUT_SECONDS: Final = 1.0


def connect(
    url: SecretStr, namespace: str = NAMESPACE
) -> "WakefulRedisBroker | ConfirmingRabbitmqBroker":
    """Make a broker for a URL of Redis or RabbitMQ; it connects when it is first used."""
    # Only the client that is used is loaded, and by the api none.
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
