"""Dramatiq's Redis broker, woken by a publish instead of by polling, and indifferent to garbage.

Dramatiq's own consumer sleeps up to its timeout between two looks at an empty queue, and a message
that it cannot decode restarts it for three seconds and is never acknowledged (dramatiq 2.2,
brokers/redis.py and worker.py).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Self, TypeVar, cast

import dramatiq
import redis
import structlog
from dramatiq.brokers.redis import RedisBroker
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from kratos_sync.infrastructure.bus.broker import NAMESPACE, BrokerUnavailable, Load, Share, bounded
from kratos_sync.infrastructure.bus.redis_consumer import Wakeups, WokenConsumer
from kratos_sync.infrastructure.bus.wire_format import MOST_BYTES

SOCKET_TIMEOUT_SECONDS = 4
# A worker that has been silent for so long is dead; what it had fetched goes back to the queue.
HEARTBEAT_TIMEOUT_MILLISECONDS = 15_000
# In a million commands, all look for dead workers: else that takes minutes on a quiet queue.
MAINTENANCE_CHANCE = 1_000_000

PING: Final = "__ping__"
"""A queue that nobody has, and that is there for no moment."""

# Before Dramatiq's script fetches so many messages, those too long to be ours lose their text: half
# a gigabyte is what Redis would hold and a worker could not.
REFUSE_LONG_MESSAGES: Final = f"""
if ARGV[1] == "fetch" and tonumber(ARGV[9]) > 0 then
    local queue = KEYS[1] .. ":" .. ARGV[3]
    for _, id in ipairs(redis.call("lrange", queue, 0, ARGV[9] - 1)) do
        if redis.call("hstrlen", queue .. ".msgs", id) > {MOST_BYTES} then
            redis.call("hdel", queue .. ".msgs", id)
        end
    end
end
"""


# As redis-py spells what may stand in a hash.
Field = bytes | bytearray | memoryview | str | int | float
T = TypeVar("T")

ASIDE: Final = ":wrong-type"
"""What is behind the name of a key that was moved, once for each name."""

# In one step: whoever else does the same makes a right one in its place.
MOVE: Final = """
local found = redis.call("type", KEYS[1]).ok
if found == ARGV[1] or found == "none" then
    return false
end
redis.call("rename", KEYS[1], KEYS[2])
return found
"""

log = structlog.get_logger()


class WakefulRedisBroker(RedisBroker):
    """A PointerBroker on Redis, whose consumers are woken by what is enqueued."""

    def __init__(self, client: redis.Redis, namespace: str = NAMESPACE) -> None:
        # No middleware: retries live in the ledger, and the pipeline runs inside the actor.
        super().__init__(  # type: ignore[no-untyped-call]  # dramatiq has no types here
            client=client,
            middleware=[],
            namespace=namespace,
            heartbeat_timeout=HEARTBEAT_TIMEOUT_MILLISECONDS,
            maintenance_chance=MAINTENANCE_CHANCE,
        )
        dispatch = self.scripts["dispatch"].script
        source = dispatch if isinstance(dispatch, str) else bytes(dispatch).decode()
        self.scripts["dispatch"] = client.register_script(REFUSE_LONG_MESSAGES + source)
        self.wakeups = Wakeups(client, f"{namespace}:wake-up")
        self._in_flight: dict[str, set[str]] = defaultdict(set)

    @classmethod
    def at(cls, url: SecretStr, namespace: str = NAMESPACE) -> Self:
        """Make a broker for a redis:, rediss: or unix: URL."""
        client = redis.Redis.from_url(
            url.get_secret_value(),
            socket_timeout=SOCKET_TIMEOUT_SECONDS,
            socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
            health_check_interval=30,
            # Once, for a connection gone stale; a server that is away is the caller's to wait for.
            retry=Retry(NoBackoff(), 1),
        )
        return cls(client, namespace)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> WokenConsumer:
        """Give a consumer that waits for wake-ups, up to the timeout (milliseconds)."""
        share = Share(queue_name, bounded(prefetch), self._in_flight[queue_name])
        return WokenConsumer(self, share, timeout, self.wakeups.event(queue_name))

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue without the delay queue beside it: due times live in the ledger."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue_many(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """Enqueue messages and wake their consumers, all in one MULTI: all are there, or none.

        Raises BrokerUnavailable.
        """
        attempts = iter(("", "-again"))  # ids of which something may be there are not used again

        def enqueue() -> None:
            attempt = next(attempts)
            encoded: dict[str, dict[Field, Field]] = defaultdict(dict)
            for message in messages:
                message_id = f"{message.message_id}{attempt}"
                ours = message.copy(options={"redis_message_id": message_id})
                encoded[message.queue_name][message_id] = ours.encode()
            with self.client.pipeline(transaction=True) as pipe:
                for queue_name, by_id in encoded.items():
                    self._push(pipe, queue_name, by_id)
                pipe.execute()

        self._ask(enqueue, {message.queue_name for message in messages})

    def load(self, queue_name: str) -> Load:
        """Count the messages of a queue. Raises BrokerUnavailable."""

        def count() -> Load:
            with self.client.pipeline(transaction=False) as pipe:
                pipe.llen(f"{self.namespace}:{queue_name}")
                pipe.hlen(f"{self.namespace}:{queue_name}.msgs")
                return Load(*pipe.execute())

        return self._ask(count, [queue_name])

    def waiting(self, queue_names: Sequence[str], seconds: float) -> Mapping[str, int]:
        """Count on a connection of its own, with no retry.

        Raises BrokerUnavailable.
        """
        pool = self.client.connection_pool
        settings = pool.connection_kwargs | {
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            "retry": Retry(NoBackoff(), 0),
        }

        def count() -> list[int]:
            brief = redis.ConnectionPool(connection_class=pool.connection_class, **settings)
            with redis.Redis.from_pool(brief) as client:
                self._probe(client)
                with client.pipeline(transaction=False) as pipe:
                    for queue_name in queue_names:
                        pipe.llen(f"{self.namespace}:{queue_name}")
                    lengths: list[int] = pipe.execute()
                    return lengths

        lengths = self._ask(count, queue_names)
        return dict(zip(queue_names, lengths, strict=True))

    def ping(self) -> None:
        """Return if Redis takes a message, which nobody gets. Raises BrokerUnavailable."""
        self._ask(lambda: self._probe(self.client), [PING])

    def close(self) -> None:
        """Stop listening and let go of the connections."""
        self.wakeups.stop()
        self.client.close()

    def repairing_keys(self, ask: Callable[[], T], queue_names: Iterable[str]) -> T:
        """Ask, and once more after moving away keys of those queues that are of a wrong type.

        Raises redis.RedisError.
        """
        try:
            return ask()
        except redis.ResponseError as error:
            if not is_wrong_type(error):
                raise
            move_wrong_types_aside(
                self.client, self.namespace, [*queue_names, PING], self.broker_id
            )
            return ask()

    def _push(self, pipe: redis.Redis, queue_name: str, encoded: dict[Field, Field]) -> None:
        key = f"{self.namespace}:{queue_name}"
        pipe.hset(f"{key}.msgs", mapping=encoded)
        pipe.rpush(key, *encoded)
        self.wakeups.publish(pipe, queue_name)

    def _probe(self, client: redis.Redis) -> None:
        # A Redis that is full, a replica, or has no such permission answers to all but this.
        with client.pipeline(transaction=True) as pipe:
            self._push(pipe, PING, {PING: ""})
            pipe.delete(f"{self.namespace}:{PING}", f"{self.namespace}:{PING}.msgs")
            pipe.execute()

    def _ask(self, ask: Callable[[], T], queue_names: Iterable[str]) -> T:
        try:
            return self.repairing_keys(ask, queue_names)
        except redis.RedisError as error:
            raise BrokerUnavailable(type(error).__name__) from None


def is_wrong_type(error: Exception) -> bool:
    """Whether a command, or one of a script, met a key of another kind than it wants."""
    return isinstance(error, redis.ResponseError) and "WRONGTYPE" in str(error)


def move_wrong_types_aside(
    client: redis.Redis, namespace: str, queues: Iterable[str], worker: str
) -> None:
    """Rename every key of ours that has a wrong type, so that a right one can be in its place.

    Raises redis.RedisError.
    """
    heartbeats = f"{namespace}:__heartbeats__"
    _move(client, heartbeats, "zset")
    ids = cast("list[bytes]", client.zrange(heartbeats, 0, -1))
    workers = {worker, *(each.decode(errors="replace") for each in ids)}
    for queue in queues:
        _move(client, f"{namespace}:{queue}", "list")
        _move(client, f"{namespace}:{queue}.msgs", "hash")
        for each in workers:
            _move(client, f"{namespace}:__acks__.{each}.{queue}", "set")


def _move(client: redis.Redis, key: str, wanted: str) -> None:
    found = client.eval(MOVE, 2, key, f"{key}{ASIDE}", wanted)
    if isinstance(found, bytes):
        log.warning("wrong_type_moved_aside", key=key, type=found.decode(), wanted=wanted)
