"""A Redis queue's consumer in a worker: waits for wake-ups, and drops what is not ours."""

import threading
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import redis
import structlog
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed

from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.broker import Share

if TYPE_CHECKING:
    from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker


log = structlog.get_logger()

LISTEN_SECONDS = 1.0


class Wakeups:
    """Wakes the consumers of this process that wait for something on their queue."""

    def __init__(self, client: redis.Redis, channel: str) -> None:
        self._client = client
        self._channel = channel
        self._events: dict[str, threading.Event] = defaultdict(threading.Event)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def publish(self, client: redis.Redis, queue_name: str) -> None:
        """Wake whoever waits for that queue, in any process."""
        client.publish(self._channel, queue_name)

    def event(self, queue_name: str) -> threading.Event:
        """Give what is set when the queue has something; the first call begins to listen."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="wake-ups", daemon=True)
                self._thread.start()
            return self._events[queue_name]

    def stop(self) -> None:
        """Stop listening."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * LISTEN_SECONDS)

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._client.pubsub(  # type: ignore[no-untyped-call]  # redis has no types here
                    ignore_subscribe_messages=True
                ) as subscription:
                    subscription.subscribe(self._channel)
                    while not self._stopped.is_set():
                        message = subscription.get_message(timeout=LISTEN_SECONDS)
                        if message is not None:
                            self._wake(message["data"])
            except redis.RedisError as error:
                log.warning("wake_ups_interrupted", error=type(error).__name__)
                self._stopped.wait(LISTEN_SECONDS)

    def _wake(self, queue_name: bytes) -> None:
        event = self._events.get(queue_name.decode(errors="replace"))
        if event is not None:
            event.set()


class WokenConsumer(Consumer):
    """Fetches at once when woken, and otherwise once a timeout (milliseconds).

    Dramatiq calls it from one thread of its own for each queue, acknowledgements from all.
    """

    def __init__(
        self,
        broker: "WakefulRedisBroker",
        share: Share[str],
        timeout: int,
        woken: threading.Event,
    ) -> None:
        self._broker = broker
        self._share = share
        self._queue_name, self._in_flight = share.queue_name, share.in_flight
        self._seconds = timeout / 1000
        self._woken = woken
        self._fetched: deque[MessageProxy] = deque()
        self._to_acknowledge: deque[str] = deque()
        self._acknowledgements = (
            f"{broker.namespace}:__acks__.{broker.broker_id}.{share.queue_name}"
        )
        self._requeue_lost()

    def __next__(self) -> MessageProxy | None:
        """Give the next message, or None after a wait in vain. Raises ConnectionClosed."""
        if self._fetched:
            return self._fetched.popleft()
        self._woken.clear()
        while self._to_acknowledge:
            self._ask("ack", self._to_acknowledge[0])
            self._to_acknowledge.popleft()
        if self._share.room and self._fetch():
            return self._fetched.popleft()
        self._woken.wait(self._seconds)
        return None

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge a message that was processed; if Redis is away, later.

        Dramatiq would keep the worker's thread waiting, five seconds and again, until it is back.
        """
        message_id = message.options["redis_message_id"]
        try:
            self._ask("ack", message_id)
        except ConnectionClosed:
            self._to_acknowledge.append(message_id)
        finally:
            self._in_flight.discard(message_id)
            self._woken.set()

    nack = ack  # the ledger knows what failed; a second graveyard in Redis would only be stale

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put messages back that were fetched and not begun."""
        ids = [message.options["redis_message_id"] for message in (*messages, *self._fetched)]
        self._fetched.clear()
        self._in_flight.difference_update(ids)
        if ids:
            self._ask("requeue", *ids)

    def close(self) -> None:
        """Nothing to close: connections belong to the broker's pool."""

    def _fetch(self) -> bool:
        fetched = self._ask("fetch", self._share.room)
        readable = [proxy for data in fetched if (proxy := self._read(data)) is not None]
        ids = {proxy.options["redis_message_id"] for proxy in readable}
        self._in_flight.update(ids)
        if len(readable) < len(fetched):
            try:
                self._drop_garbage()
            except ConnectionClosed:
                # The consumer that follows takes them back, and has room for them.
                self._in_flight.difference_update(ids)
                raise
        self._fetched.extend(readable)
        return bool(self._fetched)

    def _read(self, data: bytes | None) -> MessageProxy | None:
        message = wire_format.read_message(self._broker, self._queue_name, data)
        if message is None:
            return None
        message_id = message.options.get("redis_message_id")
        # What is no ASCII may be no Unicode either, and then it cannot be acknowledged.
        ours = isinstance(message_id, str) and message_id.isascii()
        return MessageProxy(message) if ours else None

    def _drop_garbage(self) -> None:
        # A reply has no ids: what cannot be read is what is fetched and not known.
        unknown = self._ask_client("smembers", self._acknowledgements) - self._known()
        log.warning("garbage_dropped", queue=self._queue_name, messages=len(unknown))
        for message_id in unknown:
            self._ask("ack", message_id)
        self._woken.set()  # there may be more behind it

    def _requeue_lost(self) -> None:
        # After a lost connection, what this process had fetched may have been lost on the way:
        # without this it stays "fetched" for as long as the process lives (dramatiq issue 527).
        lost = self._ask_client("smembers", self._acknowledgements) - self._known()
        if lost:
            self._ask("requeue", *lost)

    def _known(self) -> set[bytes]:
        return {message_id.encode() for message_id in self._in_flight.copy()}

    def _ask(self, command: str, *arguments: object) -> list[bytes | None]:
        try:
            answer: list[bytes | None] = self._broker.repairing_keys(
                lambda: getattr(self._broker, f"do_{command}")(self._queue_name, *arguments),
                [self._queue_name],
            )
        except redis.RedisError as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]  # dramatiq has no types here
        return answer

    def _ask_client(self, command: str, key: str) -> set[bytes]:
        try:
            answer: set[bytes] = self._broker.repairing_keys(
                lambda: getattr(self._broker.client, command)(key), [self._queue_name]
            )
        except redis.RedisError as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]  # dramatiq has no types here
        return answer
