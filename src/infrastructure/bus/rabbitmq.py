"""Dramatiq's RabbitMQ broker with confirms, a limit to every wait, and one queue for each consumer.

Dramatiq's own broker waits for ever while a server hangs, and adds a delay queue and a dead-letter
queue to each queue: ours are in the ledger (dramatiq 2.2, brokers/rabbitmq.py).
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, Self, TypeVar

import dramatiq
import pika
import structlog
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.errors import ConnectionClosed
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError, ChannelClosedByBroker, UnroutableError
from pydantic import SecretStr

from kratos_sync.infrastructure.bus import rabbitmq_hosts, wire_format
from kratos_sync.infrastructure.bus.broker import (
    NAMESPACE,
    BrokerUnavailable,
    Load,
    Share,
    bounded,
    require_version,
)
from kratos_sync.infrastructure.bus.rabbitmq_requests import RequestThread, answering
from kratos_sync.infrastructure.bus.urls import reason

OPEN_SECONDS: Final = 4.0
BLOCKED_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 8.0
HANG_UP_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 5.0
"""So long a consumer gets nothing before it looks whether something waits."""
NOT_FOUND, PRECONDITION_FAILED = 404, 406
PERSISTENT: Final = pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika has no types here
    delivery_mode=pika.DeliveryMode.Persistent.value, content_type="application/json"
)
# Also what resolving a name raises, and what pika raises for a server that does not answer.
CONNECTION_ERRORS: Final = (AMQPError, AMQPConnectorException, OSError)

log = structlog.get_logger()
T = TypeVar("T")

# They log a lost connection in several lines with tracebacks, and raise it as well.
for name in ("pika", "dramatiq.brokers.rabbitmq"):
    logging.getLogger(name).setLevel(logging.CRITICAL)


class ConfirmingRabbitmqBroker(RabbitmqBroker):
    """A PointerBroker on RabbitMQ; it sends requests on a thread that it may leave behind."""

    def __init__(self, url: str, namespace: str = NAMESPACE) -> None:
        # No middleware: retries live in the ledger, and the pipeline runs inside the actor.
        super().__init__(middleware=[])
        self.namespace = namespace
        self.hosts = rabbitmq_hosts.parse(url)
        self._ping_queue = f"{namespace}.ping"
        self._asking: RequestThread | None = None
        self._returned = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._used_as_they_are: set[str] = set()
        self._in_flight: dict[str, set[int]] = defaultdict(set)

    @classmethod
    def at(cls, url: SecretStr, namespace: str = NAMESPACE) -> Self:
        """Make a broker for an amqp: or amqps: URL, of one or several hosts."""
        return cls(url.get_secret_value(), namespace)

    @property
    def parameters(self) -> list[pika.URLParameters]:
        """Where the next connection is made to. Raises OSError."""
        seconds = OPEN_SECONDS if len(self.hosts.urls) == 1 else OPEN_SECONDS / 2
        return self.hosts.parameters(self.namespace, seconds, BLOCKED_SECONDS)

    @parameters.setter
    def parameters(self, others: object) -> None:
        """Dramatiq's own are not used."""

    def work_as(self, name: str, *, predecessor_died: bool) -> None:
        """Nothing to do: RabbitMQ requeues what a connection that ended had fetched."""

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Make a consumer with a connection of its own. Raises dramatiq's ConnectionClosed."""
        share = Share(queue_name, bounded(prefetch), self._in_flight[queue_name])
        return RabbitmqConsumer(self, share, timeout)

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:  # noqa: ARG002
        """Declare a queue here; at the server the first sender or consumer declares it."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def name_at_server(self, queue_name: str) -> str:
        """The name of a queue at RabbitMQ."""
        return f"{self.namespace}.{queue_name}"

    def enqueue_many(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """Publish messages in one transaction: its commit confirms each of them."""

        def publish(is_abandoned: Callable[[], bool]) -> None:
            for queue_name in {message.queue_name for message in messages}:
                self._declare_queue(queue_name)
            bodies = [(self.name_at_server(each.queue_name), each.encode()) for each in messages]
            if not is_abandoned():
                self._publish(bodies, mandatory=True)

        if messages:
            self._ask(publish)

    def load(self, queue_name: str) -> Load:
        return Load(self._ask(lambda _: self._declare_queue(queue_name)), None)

    def waiting(self, queue_names: Sequence[str], seconds: float) -> Mapping[str, int]:
        """Count on a connection of its own, with shorter limits."""

        def count(_: Callable[[], bool]) -> Mapping[str, int]:
            parameters = self.hosts.parameters(self.namespace, seconds, seconds)
            connection = pika.BlockingConnection(parameters)
            try:
                _check_version(connection)
                kind = self.hosts.queue_type
                with answering(connection, 2 * seconds):
                    channel = connection.channel()
                    channel.confirm_delivery()
                    channel.basic_publish("", self._ping_queue, b"", PERSISTENT)
                    return {
                        each: _count(connection, self.name_at_server(each), kind) or 0
                        for each in queue_names
                    }
            finally:
                if connection.is_open:
                    connection.close()

        asking = RequestThread(lambda: None, lambda: None)
        try:
            return asking.answer(count, 2 * seconds)
        finally:
            asking.stop()

    def ping(self) -> None:
        # A server short of memory or disk accepts connections and no messages.
        self._ask(lambda _: self._publish([(self._ping_queue, b"")], mandatory=False))

    def close(self) -> None:
        """Close the connection; consumers close their own."""
        with self._one_at_a_time:
            if self._asking is not None:
                self._asking.stop(HANG_UP_SECONDS)
                self._asking = None

    def _ask(self, call: "Callable[[Callable[[], bool]], T]") -> T:
        def ask(is_abandoned: Callable[[], bool]) -> T:
            with answering(self.connection, ANSWER_SECONDS):
                return call(is_abandoned)

        with self._one_at_a_time:
            if self._asking is None:
                self._asking = RequestThread(self._keep_alive, self._hang_up)
            try:
                return self._asking.answer(ask, ANSWER_SECONDS)
            except BrokerUnavailable:
                self._asking.stop()
                self._asking = None
                raise

    def _declare_queue(self, queue_name: str) -> int:
        """Declare a queue, and return the number of its waiting messages.

        A queue that exists with other arguments is used as it is, unless its type is wrong.
        """
        name = self.name_at_server(queue_name)
        try:
            if name not in self._used_as_they_are:
                return _declare(self.channel, name, self.hosts.queue_type)
            found = self.channel.queue_declare(name, passive=True)
        except ChannelClosedByBroker as error:
            self._used_as_they_are.discard(name)
            if error.reply_code != PRECONDITION_FAILED:
                raise
            del self.channel
            log.warning("queue_used_as_it_is", queues=[name])
            self._used_as_they_are.add(name)
            found = self.channel.queue_declare(name, passive=True)
        return int(found.method.message_count)

    def _publish(self, bodies: Sequence[tuple[str, bytes]], *, mandatory: bool) -> None:
        """Publish in a transaction: its commit is answered when every message is safe.

        With confirms, pika's blocking channel would wait for each before it sends the next message.
        """
        channel = self.channel
        if getattr(self.state, "transactional", None) is not channel:
            _check_version(self.connection)
            channel.tx_select()
            channel.add_on_return_callback(lambda *_: self._returned.set())
            self.state.transactional = channel
        self._returned.clear()
        for queue, body in bodies:
            channel.basic_publish("", queue, body, PERSISTENT, mandatory=mandatory)
        channel.tx_commit()
        self.connection.process_data_events(0)  # calls back for returned messages
        if self._returned.is_set():
            raise UnroutableError([])

    def _keep_alive(self) -> None:
        if getattr(self.state, "connection", None) is not None:
            self.connection.process_data_events(0)

    def _hang_up(self) -> None:
        del self.connection


class RabbitmqMessage(MessageProxy):
    """A message, and the delivery by which it is acknowledged."""

    def __init__(self, message: "dramatiq.Message[Any]", consumer: Consumer, tag: int) -> None:
        super().__init__(message)
        self.consumer = consumer
        self.tag = tag


class RabbitmqConsumer(Consumer):
    """Gives messages as they arrive, and None after a timeout (milliseconds).

    Dramatiq calls it from one thread for each queue, and acknowledges from all threads.
    """

    def __init__(self, broker: ConfirmingRabbitmqBroker, share: Share[int], timeout: int) -> None:
        """Connect, and declare the queue if it is missing. Raises ConnectionClosed."""
        self._broker, self._share, self._seconds = broker, share, timeout / 1000
        self._name = name = broker.name_at_server(share.queue_name)
        self._looks_at, self._waiting = monotonic() + LOOK_SECONDS, 0
        try:
            self._connection = pika.BlockingConnection(broker.parameters)
        except CONNECTION_ERRORS as error:
            raise _closed(error) from None
        try:
            with answering(self._connection, ANSWER_SECONDS):
                if _count(self._connection, name) is None:
                    _declare(self._connection.channel(), name, broker.hosts.queue_type)
                self._channel = self._connection.channel()
                self._channel.basic_qos(prefetch_count=share.most)
            self._arriving: Iterator[tuple[Any, Any, Any]] = self._channel.consume(
                name, inactivity_timeout=self._seconds
            )
        except CONNECTION_ERRORS as error:
            self.close()
            raise _closed(error) from None

    def __next__(self) -> MessageProxy | None:
        """Give the next message, or None after the timeout. Raises ConnectionClosed."""
        try:
            if not self._share.room:
                self._connection.process_data_events(self._seconds)
            while self._share.room:
                with answering(self._connection, self._seconds + ANSWER_SECONDS):
                    method, _, body = next(self._arriving)
                if method is None:
                    self._look()
                    break
                self._looks_at, self._waiting = monotonic() + LOOK_SECONDS, 0
                if (message := self._read(body, method.delivery_tag)) is not None:
                    self._share.in_flight.add(id(message))
                    return message
        except StopIteration:
            raise ConnectionClosed("the queue was deleted") from None  # type: ignore[no-untyped-call]  # dramatiq has no types here
        except CONNECTION_ERRORS as error:
            raise _closed(error) from None
        return None

    def _look(self) -> None:
        """Raise ConnectionClosed if messages wait, and do not come although there is room.

        So it is after a quorum queue was without a leader while we began to consume.
        """
        if self._share.in_flight or monotonic() < self._looks_at:
            return
        with answering(self._connection, ANSWER_SECONDS):
            found = self._channel.queue_declare(self._name, passive=True)
        before, self._waiting = self._waiting, int(found.method.message_count)
        if before and self._waiting:
            raise ConnectionClosed("messages wait and do not come")  # type: ignore[no-untyped-call]  # dramatiq has no types here
        if not self._waiting:
            self._looks_at = monotonic() + LOOK_SECONDS

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge a processed message.

        If the connection is lost first, the message comes again and finds nothing to do.
        """
        self._share.in_flight.discard(id(message))
        # Also for a message of an earlier connection: there is room for another one now.
        with suppress(AMQPError):
            self._connection.add_callback_threadsafe(partial(self._acknowledge, message))

    nack = ack  # the ledger knows what failed, and has the dead letters

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Drop messages that were not begun: RabbitMQ requeues them when we disconnect."""
        self._share.in_flight.difference_update(map(id, messages))

    def close(self) -> None:
        """Send the last acknowledgements and disconnect, without waiting for a hanging server."""
        hanging_up = threading.Thread(target=self._hang_up, name="hanging up", daemon=True)
        with suppress(RuntimeError):  # no memory for a thread: then the connection just ends
            hanging_up.start()
            hanging_up.join(HANG_UP_SECONDS)

    def _hang_up(self) -> None:
        # Pika raises whatever it likes when a connection breaks at that moment.
        with suppress(Exception):
            if self._connection.is_open:
                self._connection.process_data_events(time_limit=0)
                self._connection.close()

    def _read(self, body: bytes, tag: int) -> MessageProxy | None:
        message = wire_format.read_message(self._broker, self._share.queue_name, body)
        if message is not None:
            return RabbitmqMessage(message, self, tag)
        log.warning("garbage_dropped", queue=self._share.queue_name, messages=1)
        self._channel.basic_ack(tag)
        return None

    def _acknowledge(self, message: MessageProxy) -> None:
        if isinstance(message, RabbitmqMessage) and message.consumer is self:
            with suppress(AMQPError):
                self._channel.basic_ack(message.tag)


def _check_version(connection: pika.BlockingConnection) -> None:
    properties = connection._impl.server_properties or {}  # noqa: SLF001  # nothing else has it
    version = properties.get("version", b"")
    require_version("RabbitMQ", version if isinstance(version, str) else version.decode())


def _count(
    connection: pika.BlockingConnection, name: str, queue_type: str | None = None
) -> int | None:
    """Count the waiting messages of a queue; None if there is none of this name.

    Raises BrokerUnavailable if it has another type than the one given.
    """
    channel = connection.channel()
    try:
        found = channel.queue_declare(name, passive=True)
    except ChannelClosedByBroker as error:
        if error.reply_code != NOT_FOUND:
            raise
        return None
    if queue_type:
        _declare(channel, name, queue_type)
    channel.close()
    return int(found.method.message_count)


def _declare(channel: BlockingChannel, name: str, queue_type: str | None) -> int:
    """Declare a queue, of a type if one is given, and count its waiting messages.

    Raises BrokerUnavailable if it exists and has another type.
    """
    arguments = {"x-queue-type": queue_type} if queue_type else None
    try:
        found = channel.queue_declare(name, durable=True, arguments=arguments)
    except ChannelClosedByBroker as error:
        is_wrong = error.reply_code == PRECONDITION_FAILED and "x-queue-type" in error.reply_text
        if queue_type is None or not is_wrong:
            raise
        raise BrokerUnavailable(
            f"the queue {name} is no {queue_type} queue: delete it, as its pointers are sent again,"
            " or name its type in BROKER_URL as queue_type"
        ) from None
    return int(found.method.message_count)


def _closed(error: BaseException) -> ConnectionClosed:
    return ConnectionClosed(reason(error))  # type: ignore[no-untyped-call]  # dramatiq has no types here
