"""Dramatiq's Redis broker, woken by a publish instead of by polling, and indifferent to garbage.

Dramatiq's own consumer sleeps up to its timeout between two looks at an empty queue, and a message
that it cannot decode restarts it for three seconds and is never acknowledged (dramatiq 2.2,
brokers/redis.py and worker.py).
"""

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self, TypeVar, cast

import dramatiq
import redis
import structlog
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ConnectionClosed
from pydantic import SecretStr

from kratos_sync.infrastructure.bus import redis_clients, wire_format
from kratos_sync.infrastructure.bus.broker import (
    NAMESPACE,
    BrokerUnavailable,
    Load,
    Share,
    bounded,
    require_version,
)

SOCKET_TIMEOUT_SECONDS = 4
LISTEN_SECONDS = 1.0
# A worker that was silent for so long is dead; what it had fetched is requeued.
HEARTBEAT_TIMEOUT_MILLISECONDS = 15_000
# Of a million commands all look for dead workers: else that takes minutes on a quiet queue.
MAINTENANCE_CHANCE = 1_000_000

PING: Final = "__ping__"
"""The name of a queue that is created and deleted in one transaction."""

# Before Dramatiq's script fetches so many messages, those too long to be ours lose their text: a
# worker could not hold the half gigabyte that Redis can.
REFUSE_LONG_MESSAGES: Final = f"""
if ARGV[1] == "fetch" and tonumber(ARGV[9]) > 0 then
    local queue = KEYS[1] .. ":" .. ARGV[3]
    for _, id in ipairs(redis.call("lrange", queue, 0, ARGV[9] - 1)) do
        if redis.call("hstrlen", queue .. ".msgs", id) > {wire_format.MOST_BYTES} then
            redis.call("hdel", queue .. ".msgs", id)
        end
    end
end
"""

# Renames each of our keys that has a wrong type, so that one of the right type can be created.
MOVE_WRONG_TYPES: Final = """
local moved = {}
local function check(key, wanted)
    local found = redis.call("type", key).ok
    if found ~= wanted and found ~= "none" then
        redis.call("rename", key, key .. ":wrong-type")
        table.insert(moved, {key, found, wanted})
    end
end
local namespace = KEYS[1] .. ":"
check(namespace .. "__heartbeats__", "zset")
local workers = redis.call("zrange", namespace .. "__heartbeats__", 0, -1)
table.insert(workers, ARGV[1])
for position = 2, #ARGV do
    check(namespace .. ARGV[position], "list")
    check(namespace .. ARGV[position] .. ".msgs", "hash")
    for _, worker in ipairs(workers) do
        check(namespace .. "__acks__." .. worker .. "." .. ARGV[position], "set")
    end
end
return moved
"""

# As redis-py spells what may stand in a hash.
Field = bytes | bytearray | memoryview | str | int | float
T = TypeVar("T")

log = structlog.get_logger()


class Wakeups:
    """Wakes the consumers of this process that wait for messages."""

    def __init__(self, client: redis.Redis, channel: str) -> None:
        self._client = client
        self._channel = channel
        self._events: dict[str, threading.Event] = defaultdict(threading.Event)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def publish(self, client: redis.Redis, queue_name: str) -> None:
        """Wake the queue's consumers, in any process."""
        client.publish(self._channel, queue_name)

    def event(self, queue_name: str) -> threading.Event:
        """The event that is set when the queue has messages; the first call starts listening."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wake-ups", daemon=True)
                self._thread.start()
            return self._events[queue_name]

    def stop(self) -> None:
        """Stop listening."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * LISTEN_SECONDS)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                log.warning("wake_ups_interrupted", error=type(error).__name__)
                self._stopped.wait(LISTEN_SECONDS)

    def _listen(self) -> None:
        with self._client.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]  # redis has no types here
            subscription.subscribe(self._channel)
            while not self._stopped.is_set():
                message = subscription.get_message(timeout=LISTEN_SECONDS)
                if message is None:
                    continue
                event = self._events.get(message["data"].decode(errors="replace"))
                if event is not None:
                    event.set()


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
        self._is_checked = False

    @classmethod
    def at(cls, url: SecretStr, namespace: str = NAMESPACE) -> Self:
        """Make a broker for a redis:, rediss: or unix: URL, or one of Sentinels."""
        # A retry for a stale connection; while a server is away the caller waits.
        client = redis_clients.client(url.get_secret_value(), SOCKET_TIMEOUT_SECONDS, retries=1)
        return cls(client, namespace)

    def work_as(self, name: str, *, predecessor_died: bool) -> None:  # noqa: ARG002
        """Be the worker of this name: what a predecessor had fetched is requeued at once."""
        self.broker_id = name

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> "WokenConsumer":
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
        """Enqueue messages and wake their consumers in one MULTI: all or none are there."""
        suffixes = iter(("", "-again"))  # a failed attempt may have used its ids

        def enqueue() -> None:
            self._check_version(self.client)
            suffix = next(suffixes)
            encoded: dict[str, dict[Field, Field]] = defaultdict(dict)
            for message in messages:
                message_id = f"{message.message_id}{suffix}"
                ours = message.copy(options={"redis_message_id": message_id})
                encoded[message.queue_name][message_id] = ours.encode()
            with self.client.pipeline(transaction=True) as pipe:
                for queue_name, by_id in encoded.items():
                    self._push(pipe, queue_name, by_id)
                pipe.execute()

        self._ask(enqueue, {message.queue_name for message in messages})

    def load(self, queue_name: str) -> Load:
        def count() -> Load:
            with self.client.pipeline(transaction=False) as pipe:
                pipe.llen(f"{self.namespace}:{queue_name}")
                pipe.hlen(f"{self.namespace}:{queue_name}.msgs")
                return Load(*pipe.execute())

        return self._ask(count, [queue_name])

    def waiting(self, queue_names: Sequence[str], seconds: float) -> Mapping[str, int]:
        """Count on a connection of its own, with no retry."""

        def count() -> list[int]:
            with redis_clients.brief(self.client, seconds) as client:
                self._probe(client)
                with client.pipeline(transaction=False) as pipe:
                    for queue_name in queue_names:
                        pipe.llen(f"{self.namespace}:{queue_name}")
                    lengths: list[int] = pipe.execute()
                    return lengths

        return dict(zip(queue_names, self._ask(count, queue_names), strict=True))

    def ping(self) -> None:
        self._ask(lambda: self._probe(self.client), [PING])

    def close(self) -> None:
        self.wakeups.stop()
        redis_clients.close(self.client)

    def repairing_keys(self, ask: Callable[[], T], queue_names: Iterable[str]) -> T:
        """Ask, and once more after moving keys of the queues that are of a wrong type.

        Raises redis.RedisError.
        """
        try:
            return ask()
        except redis.ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            names = (self.namespace, self.broker_id, *queue_names, PING)
            moved = self.client.eval(MOVE_WRONG_TYPES, 1, *names)
            for key, found, wanted in cast("list[list[bytes]]", moved):
                kinds = {"type": found.decode(), "wanted": wanted.decode()}
                log.warning("wrong_type_moved_aside", key=key.decode(errors="replace"), **kinds)
            return ask()

    def _push(self, pipe: redis.Redis, queue_name: str, encoded: dict[Field, Field]) -> None:
        key = f"{self.namespace}:{queue_name}"
        pipe.hset(f"{key}.msgs", mapping=encoded)
        pipe.rpush(key, *encoded)
        self.wakeups.publish(pipe, queue_name)

    def _check_version(self, client: redis.Redis) -> None:
        if self._is_checked:
            return
        with suppress(redis.ResponseError):  # a user without INFO
            require_version("Redis", str(client.info("server").get("redis_version", "")))
        self._is_checked = True

    def _probe(self, client: redis.Redis) -> None:
        self._check_version(client)
        # A Redis that is full, a replica, or lacks a permission answers anything but this.
        with client.pipeline(transaction=True) as pipe:
            self._push(pipe, PING, {PING: ""})
            pipe.delete(f"{self.namespace}:{PING}", f"{self.namespace}:{PING}.msgs")
            pipe.execute()

    def _ask(self, ask: Callable[[], T], queue_names: Iterable[str]) -> T:
        try:
            return self.repairing_keys(ask, queue_names)
        except redis.RedisError as error:
            raise BrokerUnavailable(redis_clients.reason(error)) from None


class WokenConsumer(Consumer):
    """Fetches at once when woken, and otherwise once a timeout (milliseconds).

    Dramatiq calls it from one thread for each queue, and acknowledges from all threads.
    """

    def __init__(
        self, broker: WakefulRedisBroker, share: Share[str], timeout: int, woken: threading.Event
    ) -> None:
        self._broker = broker
        self._share = share
        self._queue_name, self._in_flight = share.queue_name, share.in_flight
        self._seconds = timeout / 1000
        self._woken = woken
        self._fetched: deque[MessageProxy] = deque()
        self._to_acknowledge: deque[str] = deque()
        self._primary = redis_clients.primary(broker.client)
        # What was fetched over a connection that broke may not have arrived: without this it stays
        # "fetched" for as long as the process lives (dramatiq issue 527).
        if lost := self._unknown():
            self._do("requeue", *lost)

    def __next__(self) -> MessageProxy | None:
        """Give the next message, or None after the timeout. Raises ConnectionClosed."""
        if self._fetched:
            return self._fetched.popleft()
        self._follow_failover()
        self._woken.clear()
        while self._to_acknowledge:
            self._do("ack", self._to_acknowledge[0])
            self._to_acknowledge.popleft()
        if self._share.room and self._fetch():
            return self._fetched.popleft()
        self._woken.wait(self._seconds)
        return None

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge a processed message; while Redis is away, later.

        Dramatiq would block the worker's thread until Redis is back.
        """
        message_id = message.options["redis_message_id"]
        try:
            self._do("ack", message_id)
        except ConnectionClosed:
            self._to_acknowledge.append(message_id)
        finally:
            self._in_flight.discard(message_id)
            self._woken.set()

    nack = ack  # the ledger knows what failed, and has the dead letters

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Requeue messages that were fetched and not begun."""
        ids = [message.options["redis_message_id"] for message in (*messages, *self._fetched)]
        self._fetched.clear()
        self._in_flight.difference_update(ids)
        if ids:
            self._do("requeue", *ids)

    def close(self) -> None:
        """Nothing to close: connections belong to the broker's pool."""

    def _follow_failover(self) -> None:
        """Have a new consumer made for a new primary.

        An older copy of the queues has messages as fetched that were acknowledged since.
        """
        before, self._primary = self._primary, redis_clients.primary(self._broker.client)
        if before not in {None, self._primary}:
            log.warning("broker_failed_over", queue=self._queue_name)
            raise ConnectionClosed("another primary")  # type: ignore[no-untyped-call]  # dramatiq has no types here

    def _fetch(self) -> bool:
        fetched = self._do("fetch", self._share.room)
        readable = [proxy for data in fetched if (proxy := self._read(data)) is not None]
        ids = {proxy.options["redis_message_id"] for proxy in readable}
        self._in_flight.update(ids)
        if len(readable) < len(fetched):
            try:
                self._drop_garbage()
            except ConnectionClosed:
                # The next consumer requeues them.
                self._in_flight.difference_update(ids)
                raise
        self._fetched.extend(readable)
        return bool(self._fetched)

    def _read(self, data: bytes | None) -> MessageProxy | None:
        message = wire_format.read_message(self._broker, self._queue_name, data)
        if message is None:
            return None
        message_id = message.options.get("redis_message_id")
        # An id that is not ASCII may be no Unicode either, and then it cannot be acknowledged.
        ours = isinstance(message_id, str) and message_id.isascii()
        return MessageProxy(message) if ours else None

    def _drop_garbage(self) -> None:
        # A reply has no ids: what cannot be read is what is fetched and not known.
        unknown = self._unknown()
        log.warning("garbage_dropped", queue=self._queue_name, messages=len(unknown))
        for message_id in unknown:
            self._do("ack", message_id)
        self._woken.set()  # there may be more behind it

    def _unknown(self) -> set[bytes]:
        """The messages that this process has fetched, as Redis knows, and does not have."""
        acks = f"{self._broker.namespace}:__acks__.{self._broker.broker_id}.{self._queue_name}"
        fetched = self._ask(lambda: cast("set[bytes]", self._broker.client.smembers(acks)))
        return fetched - {message_id.encode() for message_id in self._in_flight.copy()}

    def _do(self, command: str, *arguments: object) -> list[bytes | None]:
        do: Callable[..., list[bytes | None]] = getattr(self._broker, f"do_{command}")
        return self._ask(lambda: do(self._queue_name, *arguments))

    def _ask(self, ask: Callable[[], T]) -> T:
        try:
            return self._broker.repairing_keys(ask, [self._queue_name])
        except redis.RedisError as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]  # dramatiq has no types here
