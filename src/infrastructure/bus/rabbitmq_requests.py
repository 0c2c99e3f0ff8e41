"""Requests to RabbitMQ: each ends, and whoever asks can leave their thread behind."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

import pika
from pika.exceptions import AMQPHeartbeatTimeout

from kratos_sync.infrastructure.bus.broker import BrokerUnavailable
from kratos_sync.infrastructure.bus.rabbitmq_hosts import HEARTBEAT_SECONDS
from kratos_sync.infrastructure.bus.urls import reason

T = TypeVar("T")


@contextmanager
def answering(connection: pika.BlockingConnection, seconds: float) -> Iterator[None]:
    """Break the connection if the server has not answered by then; pika would wait for ever.

    A queue without a leader answers no request, while its node answers heartbeats.
    """
    its_loop = connection._impl  # noqa: SLF001  # a blocking connection calls nobody while it waits
    error = AMQPHeartbeatTimeout("no answer")
    breaking = its_loop._adapter_call_later(seconds, partial(its_loop._terminate_stream, error))  # noqa: SLF001
    try:
        yield
    finally:
        if connection.is_open:
            its_loop._adapter_remove_timeout(breaking)  # noqa: SLF001


class RequestThread:
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
                    asked.set_exception(error if is_told else BrokerUnavailable(reason(error)))
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
