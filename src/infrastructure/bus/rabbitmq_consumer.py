"""A RabbitMQ queue's consumer in a worker: takes what is pushed, and drops what is not ours."""

import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import dramatiq
import pika
import structlog
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError, ChannelClosedByBroker
from pika.spec import Basic

from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.broker import Share
from kratos_sync.infrastructure.bus.rabbitmq_line import PRECONDITION_FAILED

HANG_UP_SECONDS: Final = 2.0
# Resolving a name raises its own, and a server that says nothing pika's inner ones.
CONNECTION_ERRORS: Final = (AMQPError, AMQPConnectorException, OSError)

log = structlog.get_logger()


class PushedMessage(MessageProxy):
    """A message, and the delivery by which it is acknowledged."""

    def __init__(
        self, message: "dramatiq.Message[Any]", consumer: "PushedConsumer", tag: int
    ) -> None:
        super().__init__(message)
        self.consumer = consumer
        self.tag = tag


class PushedConsumer(Consumer):
    """Gives messages as they arrive, and None after a timeout (milliseconds) in vain.

    Dramatiq calls it from one thread of its own for each queue, acknowledgements from all.
    """

    def __init__(
        self,
        broker: dramatiq.Broker,
        parameters: pika.URLParameters,
        name_at_server: str,
        share: Share[int],
        timeout: int,
    ) -> None:
        """Connect, and let there be such a queue. Raises ConnectionClosed."""
        self._broker = broker
        self._share = share
        self._seconds = timeout / 1000
        self._arrived: deque[tuple[int, bytes]] = deque()
        self._is_cancelled = False
        try:
            self._connection = pika.BlockingConnection(parameters)
        except CONNECTION_ERRORS as error:
            raise _closed(error) from None
        try:
            self._channel = self._declared(name_at_server)
            self._channel.basic_qos(prefetch_count=share.most)
            self._channel.add_on_cancel_callback(self._on_cancelled)
            self._channel.basic_consume(name_at_server, self._on_message)
        except CONNECTION_ERRORS as error:
            self.close()
            raise _closed(error) from None

    def __next__(self) -> MessageProxy | None:
        """Give the next message, or None after a wait in vain. Raises ConnectionClosed."""
        if not self._arrived or not self._share.room:
            try:
                self._connection.process_data_events(time_limit=self._seconds)
            except CONNECTION_ERRORS as error:
                raise _closed(error) from None
        if self._is_cancelled:
            raise ConnectionClosed("the queue is gone")  # type: ignore[no-untyped-call]  # dramatiq has no types here
        while self._arrived and self._share.room:
            tag, body = self._arrived.popleft()
            message = wire_format.read_message(self._broker, self._share.queue_name, body)
            if message is not None:
                self._share.in_flight.add(id(pushed := PushedMessage(message, self, tag)))
                return pushed
            log.warning("garbage_dropped", queue=self._share.queue_name, messages=1)
            self._acknowledge(tag)
        return None

    def ack(self, message: MessageProxy) -> None:
        """Forget a message that was processed.

        Lost with the connection, it comes again and finds nothing to do.
        """
        self._share.in_flight.discard(id(message))
        # Even if it came by a connection that is gone: there is a place for another one now.
        with suppress(AMQPError):
            self._connection.add_callback_threadsafe(partial(self._acknowledge_if_ours, message))

    nack = ack  # the ledger knows what failed; a second graveyard would only be stale

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Let go of what was not begun: RabbitMQ gives it to others when we hang up."""
        self._share.in_flight.difference_update(map(id, messages))

    def close(self) -> None:
        """Send the last acknowledgements, and hang up; a server that hangs is not waited for."""
        hanging_up = threading.Thread(target=self._hang_up, name="hanging up", daemon=True)
        hanging_up.start()
        hanging_up.join(HANG_UP_SECONDS)

    def _declared(self, name_at_server: str) -> BlockingChannel:
        """Give a channel, and let there be the queue; one with other arguments is used as it is."""
        channel = self._connection.channel()
        try:
            channel.queue_declare(name_at_server, durable=True)
        except ChannelClosedByBroker as error:
            if error.reply_code != PRECONDITION_FAILED:
                raise
            channel = self._connection.channel()
            channel.queue_declare(name_at_server, passive=True)
        return channel

    def _hang_up(self) -> None:
        # Pika raises whatever it likes when a connection breaks at that moment.
        with suppress(Exception):
            if self._connection.is_open:
                self._connection.process_data_events(time_limit=0)
                self._connection.close()

    def _on_message(
        self,
        _channel: BlockingChannel,
        method: Basic.Deliver,
        _properties: pika.BasicProperties,
        body: bytes,
    ) -> None:
        self._arrived.append((method.delivery_tag, body))

    def _on_cancelled(self, _: object) -> None:
        self._is_cancelled = True

    def _acknowledge_if_ours(self, message: MessageProxy) -> None:
        if isinstance(message, PushedMessage) and message.consumer is self:
            self._acknowledge(message.tag)

    def _acknowledge(self, tag: int) -> None:
        with suppress(AMQPError):
            self._channel.basic_ack(tag)


def _closed(error: BaseException) -> ConnectionClosed:
    return ConnectionClosed(type(error).__name__)  # type: ignore[no-untyped-call]  # dramatiq has no types here
