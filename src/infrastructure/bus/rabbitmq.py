"""Dramatiq's RabbitMQ broker with confirms, a limit to every wait, and one queue for each consumer.

Dramatiq's own broker waits for ever while a server hangs, and adds a delay queue and a dead-letter
queue to each queue: ours are in the ledger (dramatiq 2.2, brokers/rabbitmq.py).
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, Self, TypeVar

import dramatiq
import pika
import structlog
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.errors import ConnectionClosed
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError, ChannelClosedByBroker, UnroutableError
from pydantic import SecretStr

from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.broker import (
    NAMESPACE,
    BrokerUnavailable,
    Load,
    Share,
    bounded,
    require_version,
)

OPEN_SECONDS: Final = 4.0
BLOCKED_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 8.0
HEARTBEAT_SECONDS: Final = 5
HANG_UP_SECONDS: Final = 2.0
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
        super().__init__(url=url, middleware=[])
        self.namespace = namespace
        self.parameters = [_bounded(url, namespace, OPEN_SECONDS, BLOCKED_SECONDS)]
        self._url = url
        self._ping_queue = f"{namespace}.ping"
        self._asking: _Asking | None = None
        self._returned = threading.Event()
        self._one_at_a_time = threading.Lock()
        self._used_as_they_are: set[str] = set()
        self._in_flight: dict[str, set[int]] = defaultdict(set)

    @classmethod
    def at(cls, url: SecretStr, namespace: str = NAMESPACE) -> Self:
        """Make a broker for an amqp: or amqps: URL."""
        return cls(url.get_secret_value(), namespace)

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
            parameters = _bounded(self._url, self.namespace, seconds, seconds)
            connection = pika.BlockingConnection(parameters)
            try:
                _check_version(connection)
                channel = connection.channel()
                channel.confirm_delivery()
                channel.basic_publish("", self._ping_queue, b"", PERSISTENT)
                return {each: _count(connection, self.name_at_server(each)) for each in queue_names}
            finally:
                connection.close()

        asking = _Asking(lambda: None, lambda: None)
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
        with self._one_at_a_time:
            if self._asking is None:
                self._asking = _Asking(self._keep_alive, self._hang_up)
            try:
                return self._asking.answer(call, ANSWER_SECONDS)
            except BrokerUnavailable:
                self._asking.stop()
                self._asking = None
                raise

    def _declare_queue(self, queue_name: str) -> int:
        """Declare a queue, and return the number of its waiting messages.

        A queue that exists with other arguments is used as it is.
        """
        name = self.name_at_server(queue_name)
        try:
            passive = name in self._used_as_they_are
            found = self.channel.queue_declare(name, durable=True, passive=passive)
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


class _Asking:
    """A thread that sends requests to RabbitMQ, so that the caller can stop waiting.

    It owns a connection, keeps its heartbeats going, and closes it after any error.
    """

    def __init__(self, keep_alive: Callable[[], None], hang_up: Callable[[], None]) -> None:
        self._keep_alive, self._hang_up = keep_alive, hang_up
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)
        self._thread.start()

    def answer(self, call: "Callable[[Callable[[], bool]], T]", seconds: float) -> T:
        """Run the call on the thread; it gets a function that says whether the caller has left.

        Raises BrokerUnavailable, also when it takes too long.
        """
        asked: Future[T] = Future()

        def perform() -> None:
            try:
                answer = call(asked.cancelled)
            except Exception as error:  # pika raises whatever it likes when a wire breaks
                with suppress(InvalidStateError):
                    is_told = isinstance(error, BrokerUnavailable)
                    reason = str(error) if is_told else type(error).__name__
                    asked.set_exception(BrokerUnavailable(reason))
                raise
            with suppress(InvalidStateError):
                asked.set_result(answer)

        self._calls.put(perform)
        try:
            return asked.result(seconds)
        except TimeoutError:
            asked.cancel()
            raise BrokerUnavailable("TimeoutError") from None

    def stop(self, seconds: float = 0) -> None:
        """Close the connection and end the thread, waiting for so long."""
        self._calls.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=HEARTBEAT_SECONDS / 2)
            except Empty:
                call = self._keep_alive
            try:
                (call or self._hang_up)()
            except Exception:  # noqa: BLE001  # the caller gets it
                with suppress(Exception):
                    self._hang_up()
            if call is None:
                return


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
        name = broker.name_at_server(share.queue_name)
        try:
            self._connection = pika.BlockingConnection(broker.parameters)
        except CONNECTION_ERRORS as error:
            raise _closed(error) from None
        try:
            _count(self._connection, name, declare=True)
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
                method, _, body = next(self._arriving)
                if method is None:
                    break
                if (message := self._read(body, method.delivery_tag)) is not None:
                    self._share.in_flight.add(id(message))
                    return message
        except StopIteration:
            raise ConnectionClosed("the queue was deleted") from None  # type: ignore[no-untyped-call]  # dramatiq has no types here
        except CONNECTION_ERRORS as error:
            raise _closed(error) from None
        return None

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
        """Forget messages that were not begun: RabbitMQ requeues them when we disconnect."""
        self._share.in_flight.difference_update(map(id, messages))

    def close(self) -> None:
        """Send the last acknowledgements and disconnect, without waiting for a hanging server."""
        hanging_up = threading.Thread(target=self._hang_up, name="hanging up", daemon=True)
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


def _bounded(
    url: str, namespace: str, seconds: float, blocked_seconds: float
) -> pika.URLParameters:
    parameters = pika.URLParameters(url)
    parameters.connection_attempts = 1
    parameters.socket_timeout = parameters.stack_timeout = seconds
    parameters.blocked_connection_timeout = blocked_seconds
    parameters.heartbeat = HEARTBEAT_SECONDS
    parameters.client_properties = {"connection_name": namespace}
    return parameters


def _check_version(connection: pika.BlockingConnection) -> None:
    properties = connection._impl.server_properties or {}  # noqa: SLF001  # nothing else has it
    version = properties.get("version", b"")
    require_version("RabbitMQ", version if isinstance(version, str) else version.decode())


def _count(connection: pika.BlockingConnection, name: str, *, declare: bool = False) -> int:
    """Count the waiting messages of a queue; if it is missing, `declare` it and return 0."""
    channel = connection.channel()
    try:
        found = channel.queue_declare(name, passive=True)
    except ChannelClosedByBroker as error:
        if error.reply_code != NOT_FOUND:
            raise
        if declare:
            connection.channel().queue_declare(name, durable=True)
        return 0
    channel.close()
    return int(found.method.message_count)


def _closed(error: BaseException) -> ConnectionClosed:
    return ConnectionClosed(type(error).__name__)  # type: ignore[no-untyped-call]  # dramatiq has no types here
