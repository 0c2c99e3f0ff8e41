"""Workers in the test's own process."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from queue import SimpleQueue
from typing import Any

import dramatiq
from structlog.testing import capture_logs

from kratos_sync.application.footprint import OpenBatches
from kratos_sync.infrastructure.bus.relay import Relay
from kratos_sync.infrastructure.bus.wire_format import ACTOR
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.worker.process import declared_broker
from tests.infrastructure.bus.conftest import Ledger, new_event
from tests.infrastructure.bus.peeking import AnyBroker
from tests.waiting import DEADLINE_SECONDS, in_a_thread, until


def message(queue_name: str, **arguments: Any) -> "dramatiq.Message[None]":
    return dramatiq.Message(
        queue_name=queue_name, actor_name=ACTOR, args=(), kwargs=arguments, options={}
    )


def declare_actor(
    container: Container, stopped: threading.Event | None = None, deaths: int = 0
) -> Callable[..., None]:
    """Declare the actor as a worker process does, and give what a worker's thread calls.

    It waits for a ledger that is away, unless `stopped`. So many processes have died before it.
    """
    broker = declared_broker(container, stopped or threading.Event(), OpenBatches(deaths=deaths))
    perform: Callable[..., None] = broker.get_actor(ACTOR).fn
    return perform


def declare_listener(
    broker: AnyBroker, *queue_names: str, perform: Callable[..., None] | None = None
) -> "SimpleQueue[Any]":
    """Declare an actor that reports what it received, after it has performed something."""
    received: SimpleQueue[Any] = SimpleQueue()

    def listen(number: Any = None, **_: Any) -> None:
        if perform is not None:
            perform(number)
        received.put(number)

    dramatiq.actor(actor_name=ACTOR, queue_name=queue_names[0], broker=broker)(listen)
    for queue_name in queue_names[1:]:
        broker.declare_queue(queue_name)
    return received


def take(received: "SimpleQueue[Any]", count: int) -> list[Any]:
    return [received.get(timeout=DEADLINE_SECONDS) for _ in range(count)]


@contextmanager
def working(
    broker: AnyBroker, threads: int = 2, poll_milliseconds: int = 50
) -> Iterator[dramatiq.Worker]:
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=poll_milliseconds)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop(timeout=1000 * DEADLINE_SECONDS)


def relaying(
    relay: Relay, stopped: threading.Event | None = None
) -> AbstractContextManager[threading.Thread]:
    """Relay in a thread; `stopped` is set at the end, if it is not before."""
    return in_a_thread(relay.run, stopped)


def assert_nothing_is_leased_again(container: Container, ledger: Ledger) -> None:
    """While its broker is unavailable, what a relay claimed is due again and stays as it is."""
    ledger.record(new_event())
    statement = "SELECT xmin::text, due_at, leased FROM kratos_sync.deliveries"
    with capture_logs() as logged, relaying(container.relay()):

        def failures() -> int:
            return [line["event"] for line in logged].count("broker_unavailable")

        until(lambda: failures() >= 1)
        (before,) = ledger.execute(statement)
        until(lambda: failures() >= 3)
        assert ledger.execute(statement) == [before]
        assert not before.leased
