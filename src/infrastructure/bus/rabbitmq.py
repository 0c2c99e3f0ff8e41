"""RabbitMQ as a broker of ours: durable queues, persistent messages, publisher confirms.

Dramatiq's own broker waits for each message's confirm before it sends the next, and for ever when
the server hangs; beside each queue it has a delay queue and a graveyard, and ours are in the ledger
(dramatiq 2.2, brokers/rabbitmq.py).
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, Self

import dramatiq
import pika
import structlog
from pydantic import SecretStr

from kratos_sync.infrastructure.bus.broker import NAMESPACE, BrokerUnavailable, Load, Share, bounded
from kratos_sync.infrastructure.bus.rabbitmq_consumer import PushedConsumer
from kratos_sync.infrastructure.bus.rabbitmq_line import OTHERWISE, Line

OPEN_SECONDS: Final = 4
ANSWER_SECONDS: Final = 5.0
HEARTBEAT_SECONDS: Final = 5
"""Pika gives up a server that was silent for five seconds more than this."""

log = structlog.get_logger()

# What pika logs of a lost connection, in several lines and with tracebacks, it also raises.
logging.getLogger("pika").setLevel(logging.CRITICAL)


class ConfirmingRabbitmqBroker(dramatiq.Broker):
    """A PointerBroker on RabbitMQ, which pushes: nobody has to be woken."""

    def __init__(self, url: str, namespace: str = NAMESPACE) -> None:
        # No middleware: retries live in the ledger, and the pipeline runs inside the actor.
        super().__init__(middleware=[])
        self.queues: set[str] = set()
        self.namespace = namespace
        self._url = url
        self._line: Line | None = None
        self._one_at_a_time = threading.Lock()
        self._as_they_are: set[str] = set()
        self._in_hand: dict[str, set[int]] = defaultdict(set)

    @classmethod
    def at(cls, url: SecretStr, namespace: str = NAMESPACE) -> Self:
        """Make a broker for an amqp: or amqps: URL."""
        return cls(url.get_secret_value(), namespace)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> PushedConsumer:
        """Give a consumer with a connection of its own. Raises dramatiq's ConnectionClosed."""
        return PushedConsumer(
            self,
            self._parameters(),
            self.name_at_server(queue_name),
            Share(queue_name, bounded(prefetch), self._in_hand[queue_name]),
            timeout,
        )

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue; the server hears of it from whoever first sends or consumes."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def get_declared_queues(self) -> set[str]:
        """Give the names of all queues declared so far."""
        return self.queues.copy()

    def name_at_server(self, queue_name: str) -> str:
        """Give the name by which RabbitMQ knows a queue."""
        return f"{self.namespace}.{queue_name}"

    def enqueue_many(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """Publish messages and wait until each is confirmed.

        Raises BrokerUnavailable; some of them may be there then.
        """
        if messages:
            bodies = [(self.name_at_server(each.queue_name), each.encode()) for each in messages]
            names = {name for name, _ in bodies}
            self._ask_of(names, lambda line: line.publish(bodies))

    def load(self, queue_name: str) -> Load:
        """Count the messages of a queue that no worker has. Raises BrokerUnavailable."""
        name = self.name_at_server(queue_name)
        return Load(self._ask_of({name}, lambda line: line.declare(name)), None)

    def waiting(self, queue_names: Sequence[str], seconds: float) -> Mapping[str, int]:
        """Count on a connection of its own, without the patience that ours has.

        Raises BrokerUnavailable.
        """
        with _opened(Line(self._parameters(seconds)), seconds) as line:
            _answer(line.probe(f"{self.namespace}.ping"), seconds)
            return {
                queue_name: _answer(line.count(self.name_at_server(queue_name)), seconds)
                for queue_name in queue_names
            }

    def ping(self) -> None:
        """Return if RabbitMQ takes and confirms a message. Raises BrokerUnavailable."""
        self._ask(lambda line: line.probe(f"{self.namespace}.ping"))

    def close(self) -> None:
        """Let go of the connection; consumers close their own."""
        with self._one_at_a_time:
            if self._line is not None:
                self._line.close()
                self._line.join()
                self._line = None

    def _ask_of(self, names: set[str], request: Callable[[Line], "Future[int]"]) -> int:
        """Ask, and once more of queues as they are if one is there with other arguments."""
        try:
            return self._ask(request)
        except BrokerUnavailable as error:
            known = names <= self._as_they_are
            self._as_they_are -= names  # it may be gone, and is to be declared then
            if str(error) != OTHERWISE or known:
                raise
            log.warning("queue_used_as_it_is", queues=sorted(names))
            self._as_they_are |= names
            return self._ask(request)

    def _ask(self, request: Callable[[Line], "Future[int]"]) -> int:
        with self._one_at_a_time:
            if self._line is None or not self._line.is_usable:
                self._line = Line(self._parameters(), self._as_they_are)
            line = self._line
            try:
                _answer(line.opened, OPEN_SECONDS + 1)
                return _answer(request(line), ANSWER_SECONDS)
            except BrokerUnavailable:
                self._line = None
                line.close()
                raise

    def _parameters(self, seconds: float = OPEN_SECONDS) -> pika.URLParameters:
        parameters = pika.URLParameters(self._url)
        parameters.connection_attempts = 1
        parameters.socket_timeout = parameters.stack_timeout = seconds
        parameters.blocked_connection_timeout = ANSWER_SECONDS
        parameters.heartbeat = HEARTBEAT_SECONDS
        parameters.client_properties = {"connection_name": self.namespace}
        return parameters


@contextmanager
def _opened(line: Line, seconds: float) -> Iterator[Line]:
    try:
        _answer(line.opened, seconds)
        yield line
    finally:
        line.close()
        line.join()


def _answer(asked: "Future[int]", seconds: float) -> int:
    try:
        return asked.result(seconds)
    except TimeoutError:
        raise BrokerUnavailable("TimeoutError") from None
