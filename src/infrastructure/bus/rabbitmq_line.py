"""One connection to RabbitMQ for whoever sends and counts, on a thread of its own."""

import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.frame import Method
from pika.spec import Basic

from kratos_sync.infrastructure.bus.broker import BrokerUnavailable

PERSISTENT: Final = pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika has no types here
    delivery_mode=pika.DeliveryMode.Persistent.value, content_type="application/json"
)
NOT_FOUND, PRECONDITION_FAILED = 404, 406
STOP_SECONDS: Final = 2.0
OTHERWISE: Final = "QueueIsOtherwise"  # it is there with other arguments than ours


class Line:
    """From the opening of a connection to its end.

    Its thread keeps the heartbeats going and hears at once what the server says, so a line that
    went dead while nobody needed it is known to be. One request at a time, from any thread; each
    gives a Future that has a number, or BrokerUnavailable, after which the line is of no use.
    """

    def __init__(self, parameters: pika.URLParameters, as_is: Collection[str] = ()) -> None:
        """Begin to connect; some queues are used as they are, whatever their arguments."""
        self._as_is = as_is
        self.opened: Future[int] = Future()
        self._asked: Future[int] = self.opened
        self._unconfirmed: set[int] = set()
        self._tag = 0
        self._channel: Channel | None = None
        self._guard = threading.Lock()
        self._reason = ""
        self._connection = pika.SelectConnection(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_end,
            on_close_callback=self._on_end,
        )
        self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)
        self._thread.start()

    @property
    def is_usable(self) -> bool:
        """Whether it is worth to ask anything of it."""
        return not self._reason

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> "Future[int]":
        """Send bodies to queues, which are declared before; done when each is confirmed."""
        return self._ask(partial(self._publish, list(messages), declared=True))

    def probe(self, queue: str) -> "Future[int]":
        """Send an empty message to a queue that there is not; done when the server confirms it.

        A server that is short of memory or disk lets everybody connect and nobody publish.
        """
        return self._ask(partial(self._publish, [(queue, b"")], declared=False))

    def declare(self, queue: str) -> "Future[int]":
        """Let there be a queue; done with the number of messages that nobody has fetched."""
        return self._ask(partial(self._declare, queue))

    def count(self, queue: str) -> "Future[int]":
        """Give the number of messages that nobody has fetched: 0 if there is no such queue."""
        return self._ask(partial(self._count, queue))

    def close(self) -> None:
        """Hang up, at once if the server answers; if not, its thread ends a few seconds later."""
        self._in_thread(self._hang_up)

    def join(self) -> None:
        """Wait a moment for the end of it."""
        self._thread.join(STOP_SECONDS)

    def _ask(self, request: Callable[[Channel, "Future[int]"], object]) -> "Future[int]":
        asked: Future[int] = Future()
        if not self._in_thread(partial(self._begin, request, asked)):
            asked.set_exception(BrokerUnavailable(self._reason))
        return asked

    def _in_thread(self, work: Callable[[], None]) -> bool:
        with self._guard:
            if not self._reason:
                self._connection.ioloop.add_callback_threadsafe(work)
            return not self._reason

    def _run(self) -> None:
        try:
            self._connection.ioloop.start()
        finally:
            self._end("LineBroke")
            self._connection.ioloop.close()

    def _begin(
        self, request: Callable[[Channel, "Future[int]"], object], asked: "Future[int]"
    ) -> None:
        self._asked = asked
        if self._channel is None:
            return self._fail("NotOpen")
        try:
            request(self._channel, asked)
        except AMQPError as error:
            self._fail(type(error).__name__)

    def _publish(
        self,
        messages: list[tuple[str, bytes]],
        channel: Channel,
        _asked: "Future[int]",
        *,
        declared: bool,
    ) -> None:
        # What follows on a channel comes after it: a queue that was wiped is there again.
        for queue in {queue for queue, _ in messages if declared}:
            self._declare(queue, channel)
        for queue, body in messages:
            channel.basic_publish("", queue, body, PERSISTENT, mandatory=declared)
            self._tag += 1
            self._unconfirmed.add(self._tag)

    def _declare(self, queue: str, channel: Channel, asked: "Future[int] | None" = None) -> None:
        told = partial(_tell_messages, asked) if asked else None
        channel.queue_declare(queue, passive=queue in self._as_is, durable=True, callback=told)

    def _count(self, queue: str, _channel: Channel, asked: "Future[int]") -> None:
        # On a channel of its own, for a queue that there is not closes it.
        def look(channel: Channel) -> None:
            channel.add_on_close_callback(closed)
            channel.queue_declare(queue, passive=True, callback=partial(_tell_messages, asked))

        def closed(_: Channel, reason: Exception) -> None:
            if getattr(reason, "reply_code", None) == NOT_FOUND:
                _tell(asked, 0)
            else:
                self._fail(type(reason).__name__)

        self._connection.channel(on_open_callback=look)

    def _on_open(self, connection: pika.SelectConnection) -> None:
        connection.add_on_connection_blocked_callback(lambda *_: self._fail("ConnectionBlocked"))
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel: Channel) -> None:
        channel.add_on_close_callback(lambda _, reason: self._fail(_why(reason)))
        channel.add_on_return_callback(lambda *_: self._fail("Unroutable"))
        channel.confirm_delivery(self._on_confirmed, callback=lambda _: _tell(self.opened, 0))
        self._channel = channel

    def _on_confirmed(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        tag, several = frame.method.delivery_tag, frame.method.multiple
        self._unconfirmed -= {t for t in self._unconfirmed if t == tag or (several and t <= tag)}
        if isinstance(frame.method, Basic.Nack):
            self._fail("Refused")
        elif not self._unconfirmed:
            _tell(self._asked, 0)

    def _on_end(self, connection: pika.SelectConnection, reason: BaseException) -> None:
        self._end(type(reason).__name__)
        connection.ioloop.stop()

    def _end(self, reason: str) -> None:
        with self._guard:
            self._reason = self._reason or reason
        for asked in (self.opened, self._asked):
            if not asked.done():
                asked.set_exception(BrokerUnavailable(self._reason))

    def _fail(self, reason: str) -> None:
        self._end(reason)
        self._hang_up()

    def _hang_up(self) -> None:
        # While it opens pika fails when told to stop, and it has a timeout; later, heartbeats.
        with suppress(AMQPError):
            if self._connection.is_open:
                self._connection.close()


def _why(reason: Exception) -> str:
    code = getattr(reason, "reply_code", None)
    return OTHERWISE if code == PRECONDITION_FAILED else type(reason).__name__


def _tell_messages(asked: "Future[int]", frame: Method[Any]) -> None:
    _tell(asked, frame.method.message_count)


def _tell(asked: "Future[int]", number: int) -> None:
    if not asked.done():
        asked.set_result(number)
