"""What waits at the broker."""

from collections.abc import Sequence
from typing import Final

from application.ports.status import BrokerStatus
from infrastructure.bus.pointer_broker import BrokerUnavailable, PointerBroker

TIMEOUT_SECONDS: Final = 1.0


def look_at(broker: PointerBroker, consumers: Sequence[str]) -> BrokerStatus:
    """Count the messages that no worker has fetched yet; a broker that is away is an answer too."""
    try:
        return BrokerStatus(broker.waiting(consumers, TIMEOUT_SECONDS))
    except BrokerUnavailable as error:
        return BrokerStatus({}, str(error))
