"""What waits at the broker."""

from collections.abc import Sequence
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from application.ports.status import BrokerStatus
from infrastructure.bus.broker import WakefulRedisBroker

TIMEOUT_SECONDS: Final = 1.0


def look_at(broker: WakefulRedisBroker, consumers: Sequence[str]) -> BrokerStatus:
    """Count the messages that no worker has fetched yet; a broker that is away is an answer too.

    It is asked once and briefly, whatever timeouts and retries its own connections have.
    """
    pool = broker.client.connection_pool
    briefly = {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    settings = {**pool.connection_kwargs, **briefly}
    try:
        with (
            redis.Redis.from_pool(
                redis.ConnectionPool(connection_class=pool.connection_class, **settings)
            ) as client,
            client.pipeline(transaction=False) as pipe,
        ):
            pipe.ping()
            for consumer in consumers:
                pipe.llen(f"{broker.namespace}:{consumer}")
            _, *lengths = pipe.execute()
    except redis.RedisError as error:
        return BrokerStatus({}, type(error).__name__)
    return BrokerStatus(dict(zip(consumers, lengths, strict=True)))
