"""A queue's consumer in a worker: waits to be woken, and drops what is not ours."""

from collections import deque
from collections.abc import Iterable
from threading import Event

import redis
import structlog
from dramatiq import DecodeError, Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import ActorNotFound, ConnectionClosed

log = structlog.get_logger()


class WokenConsumer(Consumer):
    """Fetches at once when woken, and otherwise once a timeout (milliseconds).

    Dramatiq calls it from one thread of its own for each queue, acknowledgements from all.
    """

    def __init__(
        self, broker: RedisBroker, queue_name: str, prefetch: int, timeout: int, woken: Event
    ) -> None:
        self._broker = broker
        self._queue_name = queue_name
        self._prefetch = prefetch
        self._seconds = timeout / 1000
        self._woken = woken
        self._fetched: deque[MessageProxy] = deque()
        self._unacknowledged: set[str] = set()
        self._acknowledgements = f"{broker.namespace}:__acks__.{broker.broker_id}.{queue_name}"
        self._take_back()

    def __next__(self) -> MessageProxy | None:
        """Give the next message, or None after a wait in vain. Raises ConnectionClosed."""
        if self._fetched:
            return self._fetched.popleft()
        self._woken.clear()
        if len(self._unacknowledged) < self._prefetch and self._fetch():
            return self._fetched.popleft()
        self._woken.wait(self._seconds)
        return None

    def ack(self, message: MessageProxy) -> None:
        """Forget a message that was processed. Raises ConnectionClosed."""
        self._forget(message.options["redis_message_id"])

    nack = ack  # the ledger knows what failed; a second graveyard in Redis would only be stale

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put messages back that were fetched and not begun."""
        ids = [message.options["redis_message_id"] for message in messages]
        ids += [message.options["redis_message_id"] for message in self._fetched]
        self._fetched.clear()
        if ids:
            self._ask("requeue", *ids)

    def close(self) -> None:
        """Nothing to close: connections belong to the broker's pool."""

    def _fetch(self) -> bool:
        fetched = self._ask("fetch", self._prefetch - len(self._unacknowledged))
        readable = [proxy for data in fetched if (proxy := self._read(data)) is not None]
        self._unacknowledged.update(proxy.options["redis_message_id"] for proxy in readable)
        self._fetched.extend(readable)
        if len(readable) < len(fetched):
            self._drop_garbage()
        return bool(self._fetched)

    def _read(self, data: bytes | None) -> MessageProxy | None:
        if data is None:
            return None
        try:
            message: Message[None] = Message.decode(data)
            self._broker.get_actor(message.actor_name)
            # A worker thread dies of what it cannot call, and of a queue that it does not know.
            ours = (
                message.queue_name == self._queue_name
                and type(message.kwargs) is dict
                and isinstance(message.options["redis_message_id"], str)
                and "eta" not in message.options
            )
        except (DecodeError, ActorNotFound, LookupError, TypeError, AttributeError):
            return None
        return MessageProxy(message) if ours else None

    def _drop_garbage(self) -> None:
        # A reply has no ids: what cannot be read is what is fetched and not known.
        fetched = self._ask_client("smembers", self._acknowledgements)
        garbage = fetched - {each.encode() for each in self._unacknowledged}
        log.warning("garbage_dropped", queue=self._queue_name, messages=len(garbage))
        for message_id in garbage:
            self._ask("ack", message_id)
        self._woken.set()  # there may be more behind it

    def _take_back(self) -> None:
        # After a lost connection, what this process had fetched may have been lost on the way:
        # without this it stays "fetched" for as long as the process lives (dramatiq issue 527).
        fetched = self._ask_client("smembers", self._acknowledgements)
        if fetched:
            self._ask("requeue", *fetched)

    def _forget(self, message_id: str) -> None:
        try:
            self._ask("ack", message_id)
        finally:
            self._unacknowledged.discard(message_id)
            self._woken.set()

    def _ask(self, command: str, *arguments: object) -> list[bytes | None]:
        try:
            answer: list[bytes | None] = getattr(self._broker, f"do_{command}")(
                self._queue_name, *arguments
            )
        except redis.RedisError as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]  # dramatiq has no types here
        return answer

    def _ask_client(self, command: str, key: str) -> set[bytes]:
        try:
            answer: set[bytes] = getattr(self._broker.client, command)(key)
        except redis.RedisError as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]  # dramatiq has no types here
        return answer
