"""A Redis queue's consumer in a worker: waits to be woken, and drops what is not ours."""

from collections import deque
from collections.abc import Iterable
from threading import Event
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


class WokenConsumer(Consumer):
    """Fetches at once when woken, and otherwise once a timeout (milliseconds).

    Dramatiq calls it from one thread of its own for each queue, acknowledgements from all.
    """

    def __init__(
        self,
        broker: "WakefulRedisBroker",
        share: Share[str],
        timeout: int,
        woken: Event,
    ) -> None:
        self._broker = broker
        self._share = share
        self._queue_name, self._in_hand = share.queue_name, share.in_flight
        self._seconds = timeout / 1000
        self._woken = woken
        self._fetched: deque[MessageProxy] = deque()
        self._to_acknowledge: deque[str] = deque()
        self._acknowledgements = (
            f"{broker.namespace}:__acks__.{broker.broker_id}.{share.queue_name}"
        )
        self._take_back()

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
        """Forget a message that was processed; if Redis is away, later.

        Dramatiq would keep the worker's thread waiting, five seconds and again, until it is back.
        """
        message_id = message.options["redis_message_id"]
        try:
            self._ask("ack", message_id)
        except ConnectionClosed:
            self._to_acknowledge.append(message_id)
        finally:
            self._in_hand.discard(message_id)
            self._woken.set()

    nack = ack  # the ledger knows what failed; a second graveyard in Redis would only be stale

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put messages back that were fetched and not begun."""
        ids = [message.options["redis_message_id"] for message in (*messages, *self._fetched)]
        self._fetched.clear()
        self._in_hand.difference_update(ids)
        if ids:
            self._ask("requeue", *ids)

    def close(self) -> None:
        """Nothing to close: connections belong to the broker's pool."""

    def _fetch(self) -> bool:
        fetched = self._ask("fetch", self._share.room)
        readable = [proxy for data in fetched if (proxy := self._read(data)) is not None]
        ids = {proxy.options["redis_message_id"] for proxy in readable}
        self._in_hand.update(ids)
        if len(readable) < len(fetched):
            try:
                self._drop_garbage()
            except ConnectionClosed:
                # The consumer that follows takes them back, and has room for them.
                self._in_hand.difference_update(ids)
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

    def _take_back(self) -> None:
        # After a lost connection, what this process had fetched may have been lost on the way:
        # without this it stays "fetched" for as long as the process lives (dramatiq issue 527).
        lost = self._ask_client("smembers", self._acknowledgements) - self._known()
        if lost:
            self._ask("requeue", *lost)

    def _known(self) -> set[bytes]:
        return {message_id.encode() for message_id in self._in_hand.copy()}

    def _ask(self, command: str, *arguments: object) -> list[bytes | None]:
        try:
            answer: list[bytes | None] = self._broker.put_right(
                lambda: getattr(self._broker, f"do_{command}")(self._queue_name, *arguments),
                [self._queue_name],
            )
        except redis.RedisError as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]  # dramatiq has no types here
        return answer

    def _ask_client(self, command: str, key: str) -> set[bytes]:
        try:
            answer: set[bytes] = self._broker.put_right(
                lambda: getattr(self._broker.client, command)(key), [self._queue_name]
            )
        except redis.RedisError as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]  # dramatiq has no types here
        return answer
