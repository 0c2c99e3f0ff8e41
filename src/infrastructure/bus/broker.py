"""Dramatiq's Redis broker, woken by a publish instead of polling fast, and deaf to garbage.

Dramatiq's own consumer sleeps up to its timeout between two looks at an empty queue, and a message
that it cannot decode restarts it for three seconds and is never acknowledged (dramatiq 2.2,
brokers/redis.py and worker.py).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from infrastructure.bus.redis_consumer import WokenConsumer
from infrastructure.bus.wakeups import Wakeups

NAMESPACE = "kratos-sync"
SOCKET_TIMEOUT_SECONDS = 5
# A worker that has been silent for so long is dead; what it had fetched goes back to the queue.
HEARTBEAT_TIMEOUT_MILLISECONDS = 15_000
# In a million commands, all look for dead workers: else that takes minutes on a quiet queue.
MAINTENANCE_CHANCE = 1_000_000

# As redis-py spells what may stand in a hash.
Field = bytes | bytearray | memoryview | str | int | float


class Load(NamedTuple):
    """The messages of a queue: those that no worker has fetched, and those not acknowledged."""

    waiting: int
    unacknowledged: int


class WakefulRedisBroker(RedisBroker):
    """A Redis broker that can enqueue in bulk and whose consumers are woken by it."""

    def __init__(self, client: redis.Redis, namespace: str = NAMESPACE) -> None:
        # No middleware: retries live in the ledger, and the pipeline runs inside the actor.
        super().__init__(  # type: ignore[no-untyped-call]  # dramatiq has no types here
            client=client,
            middleware=[],
            namespace=namespace,
            heartbeat_timeout=HEARTBEAT_TIMEOUT_MILLISECONDS,
            maintenance_chance=MAINTENANCE_CHANCE,
        )
        self.wakeups = Wakeups(client, f"{namespace}:wake-up")

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> WokenConsumer:
        """Give a consumer that waits for wake-ups, up to the timeout (milliseconds).

        It fetches half of what Dramatiq would, a message for each thread: one is a whole batch, and
        those that wait here are missed by a worker next door.
        """
        woken = self.wakeups.event(queue_name)
        return WokenConsumer(self, queue_name, max(prefetch // 2, 1), timeout, woken)

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue without the delay queue beside it: due times live in the ledger."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue_many(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """Enqueue messages and wake their consumers, all in one MULTI.

        Raises redis.RedisError; then all of them are there, or none is.
        """
        with self.client.pipeline(transaction=True) as pipe:
            for queue_name in {message.queue_name for message in messages}:
                encoded: dict[Field, Field] = {
                    message.message_id: message.copy(
                        options={"redis_message_id": message.message_id}
                    ).encode()
                    for message in messages
                    if message.queue_name == queue_name
                }
                key = f"{self.namespace}:{queue_name}"
                pipe.hset(f"{key}.msgs", mapping=encoded)
                pipe.rpush(key, *encoded)
                self.wakeups.publish(pipe, queue_name)
            pipe.execute()

    def load(self, queue_name: str) -> Load:
        """Count the messages of a queue. Raises redis.RedisError."""
        with self.client.pipeline(transaction=False) as pipe:
            pipe.llen(f"{self.namespace}:{queue_name}")
            pipe.hlen(f"{self.namespace}:{queue_name}.msgs")
            return Load(*pipe.execute())

    def close(self) -> None:
        """Stop listening and let go of the connections."""
        self.wakeups.stop()
        self.client.close()


def connect(url: SecretStr) -> WakefulRedisBroker:
    """Make a broker; it connects when it is first used."""
    client = redis.Redis.from_url(
        url.get_secret_value(),
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
        health_check_interval=30,
        # Once, for a connection gone stale; a server that is away is the caller's to wait for.
        retry=Retry(NoBackoff(), 1),
    )
    return WakefulRedisBroker(client)
