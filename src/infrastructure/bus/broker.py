"""Which broker a URL stands for."""

from typing import TYPE_CHECKING

from pydantic import SecretStr

from infrastructure.bus.pointer_broker import NAMESPACE
from infrastructure.bus.redis_broker import WakefulRedisBroker

if TYPE_CHECKING:
    from infrastructure.bus.rabbitmq_broker import ConfirmingRabbitmqBroker


def connect(
    url: SecretStr, namespace: str = NAMESPACE
) -> "WakefulRedisBroker | ConfirmingRabbitmqBroker":
    """Make a broker for a URL of Redis or RabbitMQ; it connects when it is first used."""
    if url.get_secret_value().startswith("amqp"):
        from infrastructure.bus.rabbitmq_broker import ConfirmingRabbitmqBroker

        return ConfirmingRabbitmqBroker.at(url, namespace)
    return WakefulRedisBroker.at(url, namespace)
