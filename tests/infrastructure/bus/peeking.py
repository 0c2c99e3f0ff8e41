"""Looking into a broker's queues, and putting things there, past the broker's own code."""

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pydantic import SecretStr

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.infrastructure.bus.memory import MemoryBroker
from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker
from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker
from kratos_sync.infrastructure.container import broker_namespace
from kratos_sync.infrastructure.postgres.engine import connect

OWN_QUEUES = sorted(Subscriptions(SUBSCRIPTIONS).consumers)
AnyBroker = WakefulRedisBroker | ConfirmingRabbitmqBroker | MemoryBroker


def namespace_of(database_url: str) -> str:
    """What the names of the queues begin with of a service that has this database."""
    engine = connect(SecretStr(database_url), pool_size=1)
    try:
        return broker_namespace(engine)
    finally:
        engine.dispose()


def messages_in(broker: AnyBroker, queue: str) -> list[bytes]:
    """What waits in a queue, in order; it goes on waiting there."""
    if isinstance(broker, ConfirmingRabbitmqBroker):
        return _look(broker, queue)
    if isinstance(broker, MemoryBroker):
        held = broker._queue(queue)
        with held.changed:
            return [message.encode() for message in held.waiting]
    key = f"{broker.namespace}:{queue}"
    ids = broker.client.lrange(key, 0, -1)
    found = [broker.client.hget(f"{key}.msgs", message_id) for message_id in ids]
    return [each for each in found if each is not None]


def put(
    broker: WakefulRedisBroker | ConfirmingRabbitmqBroker,
    queue: str,
    data: bytes,
    message_id: str | bytes = "an id",
    *further_ids: str | bytes,
) -> None:
    """Do as somebody else does who can write to the broker; once for each id."""
    ids = (message_id, *further_ids)
    if isinstance(broker, ConfirmingRabbitmqBroker):
        with _connected(broker) as connection:
            channel = connection.channel()
            name = broker.name_at_server(queue)
            channel.queue_declare(name, durable=True)
            for _ in ids:
                channel.basic_publish("", name, data)
    else:
        for each in ids:
            broker.client.hset(f"{broker.namespace}:{queue}.msgs", each, data)
            broker.client.rpush(f"{broker.namespace}:{queue}", each)


def wipe(broker: AnyBroker) -> None:
    """Let the broker forget all that it ever knew of us, while everybody is connected."""
    if isinstance(broker, WakefulRedisBroker):
        keys = list(broker.client.scan_iter(f"{broker.namespace}:*"))
        if keys:
            broker.client.delete(*keys)
        broker.client.script_flush()
        return
    if isinstance(broker, MemoryBroker):
        for held in broker._held.values():
            held.waiting.clear()
        return
    with _connected(broker) as connection:
        for queue in {*OWN_QUEUES, *broker.queues}:
            connection.channel().queue_delete(broker.name_at_server(queue))


def left_behind(broker: AnyBroker) -> set[str]:
    """What is left of messages: Redis' keys without heartbeats, or queues that are not empty."""
    if isinstance(broker, MemoryBroker):
        return {name for name, held in broker._held.items() if held.waiting or held.in_flight}
    if isinstance(broker, ConfirmingRabbitmqBroker):
        return {queue for queue in broker.queues if broker.load(queue).waiting}
    keys = {key.decode() for key in broker.client.scan_iter(f"{broker.namespace}:*")}
    return keys - {f"{broker.namespace}:__heartbeats__"}


def is_back(broker: AnyBroker) -> bool:
    from kratos_sync.infrastructure.bus.broker import BrokerUnavailable

    try:
        broker.ping()
    except BrokerUnavailable:
        return False
    return True


def _look(broker: ConfirmingRabbitmqBroker, queue: str) -> list[bytes]:
    name, found = broker.name_at_server(queue), []
    with _connected(broker) as connection:
        channel: BlockingChannel = connection.channel()
        channel.queue_declare(name, durable=True)
        while (taken := channel.basic_get(name))[0] is not None:
            found.append(taken[2])
        channel.basic_nack(0, multiple=True, requeue=True)
        channel.queue_declare(name, durable=True)  # answered when all is back
    return found


def _connected(broker: ConfirmingRabbitmqBroker) -> pika.BlockingConnection:
    return pika.BlockingConnection(broker.parameters)
