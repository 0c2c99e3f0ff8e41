"""A broker in memory: what only that one does, and how other processes see it."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.infrastructure.bus import memory, wire_format
from kratos_sync.infrastructure.bus.broker import (
    BrokerNotShared,
    BrokerUnavailable,
    broker_status,
    connect,
)
from kratos_sync.infrastructure.bus.memory import ROUTE, MemoryBroker, MemoryElsewhere
from kratos_sync.infrastructure.bus.urls import IN_MEMORY
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.ledger.claims import MOMENT, PostgresClaims
from kratos_sync.infrastructure.observability.http_server import ObservabilityServer, Response
from tests.infrastructure.bus.conftest import Ledger, new_event
from tests.infrastructure.bus.peeking import wipe
from tests.infrastructure.bus.test_relay import dispatched, with_lease
from tests.infrastructure.bus.working import declare_listener, message, take, working
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until

SYNC = "SyncKratosIdentity"
LONG_AGO = f"due_at = due_at - interval '{2 * MOMENT.total_seconds()} s'"


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


def test_its_url_makes_one_for_each_that_asks() -> None:
    one, other = connect(SecretStr(IN_MEMORY)), connect(SecretStr(IN_MEMORY))
    one.enqueue_many([message("mail", number=1)])

    assert one.waiting(["mail"], 0) == {"mail": 1}
    assert other.waiting(["mail"], 0) == {"mail": 0}


def test_a_full_queue_takes_none_of_the_messages(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MOST_MESSAGES", 3)
    broker.enqueue_many([message("mail", number=1), message("mail", number=2)])

    with pytest.raises(BrokerUnavailable, match="QueueFull"):
        broker.enqueue_many([message("parcels"), message("mail"), message("mail")])
    assert broker.waiting(["mail", "parcels"], 0) == {"mail": 2, "parcels": 0}
    broker.enqueue_many([message("mail", number=3)])


def test_what_was_taken_and_not_begun_is_given_again_in_the_same_order(
    broker: MemoryBroker,
) -> None:
    declare_listener(broker, "mail")
    broker.enqueue_many([message("mail", number=number) for number in range(5)])
    consumer = broker.consume("mail", prefetch=2 * 4, timeout=50)
    taken = [next(consumer) for _ in range(3)]

    consumer.requeue(each for each in taken if each is not None)

    again = [next(consumer) for _ in range(3)]
    assert [each.kwargs["number"] for each in again if each is not None] == [0, 1, 2]


def test_closed_it_accepts_nothing_and_what_was_leased_is_released(
    broker: MemoryBroker, container: Container, ledger: Ledger
) -> None:
    broker.close()
    ledger.record(new_event())

    with pytest.raises(BrokerUnavailable, match="Closed"):
        container.relay().turn()
    with pytest.raises(BrokerUnavailable):
        broker.ping()
    assert ledger.count("NOT leased AND due_at <= now()") == 1


def test_what_a_worker_had_not_begun_when_it_stopped_is_known(
    broker: MemoryBroker, ledger: Ledger
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def take_time(_: object) -> None:
        begun.set()
        assert go_on.wait(DEADLINE_SECONDS)

    received = declare_listener(broker, SYNC, perform=take_time)
    events = [new_event().id for _ in range(4)]
    broker.enqueue_many(wire_format.messages(SYNC, [[each] for each in events]))
    with working(broker, threads=1) as worker:
        assert begun.wait(DEADLINE_SECONDS)
        for thread in worker.workers:
            thread.stop()
        go_on.set()
    take(received, 1)

    assert broker.left() == {SYNC: events[1:]}


def leased_long_ago(container: Container, engine: Engine, ledger: Ledger) -> None:
    """A delivery that another process has leased and not consumed."""
    ledger.record(new_event())
    PostgresClaims(engine, timedelta(minutes=10)).claim(SYNC, 1)
    ledger.execute(f"UPDATE kratos_sync.deliveries SET {LONG_AGO}")


def test_a_successor_sends_again_at_once_what_its_predecessor_had_in_memory(
    broker: MemoryBroker, container: Container, engine: Engine, ledger: Ledger
) -> None:
    leased_long_ago(container, engine, ledger)
    broker.work_as("a worker", predecessor_died=True)
    relay = with_lease(container, engine, timedelta(minutes=10))

    until(lambda: relay.turn() and dispatched(broker))


@pytest.mark.parametrize("predecessor_died", [False, True])
def test_what_another_process_has_under_lease_is_left_to_it(
    broker: MemoryBroker,
    container: Container,
    engine: Engine,
    ledger: Ledger,
    predecessor_died: bool,
) -> None:
    if predecessor_died:
        broker.enqueue_many([message(SYNC)])  # so what was lost has been looked for
        broker.work_as("a worker", predecessor_died=True)
        wipe(broker)
    leased_long_ago(container, engine, ledger)
    relay = with_lease(container, engine, timedelta(minutes=10))

    for _ in range(3):
        relay.turn()

    assert dispatched(broker) == []
    assert ledger.count("leased") == 1


def test_processes_that_would_not_share_it_are_given_none(container: Container) -> None:
    container.broker.reset_override()
    settings = container.settings().model_copy(update={"broker_url": SecretStr(IN_MEMORY)})
    container.settings.override(settings)

    with pytest.raises(BrokerNotShared, match="set BROKER_URL to a Redis or a RabbitMQ"):
        container.broker()
    assert container.broker_to_ask().close() is None


@pytest.fixture
def serving(broker: MemoryBroker) -> Iterator[int]:
    """The port of a process that has the broker."""

    def route() -> Response:
        return Response(json.dumps(broker.waiting(["Greet", "Count"], 0)).encode())

    server = ObservabilityServer("127.0.0.1", 0, {ROUTE: route})
    server.start()
    yield server.port
    server.stop()


def test_another_process_asks_the_one_that_has_it(broker: MemoryBroker, serving: int) -> None:
    broker.enqueue_many([message("Greet"), message("Greet")])

    status = broker_status(MemoryElsewhere("127.0.0.1", serving), ["Greet", "Count", "Tickle"])

    assert status.answers is True
    assert status.messages == {"Greet": 2, "Count": 0, "Tickle": 0}


def test_a_process_that_does_not_answer_is_a_broker_that_is_down() -> None:
    status = broker_status(MemoryElsewhere("127.0.0.1", free_port()), ["Greet"])

    assert (status.answers, status.error) == (False, "ConnectionRefusedError")


def test_without_a_port_nothing_is_claimed_of_it() -> None:
    status = broker_status(MemoryElsewhere("127.0.0.1", None), ["Greet"])

    assert (status.answers, status.error, status.messages) == (None, None, {})


@pytest.mark.parametrize("answer", [b"hello", b"[]", b'{"Greet": "many"}', b'{"Greet": null}'])
def test_another_server_on_that_port_is_no_broker(answer: bytes) -> None:
    server = ObservabilityServer("127.0.0.1", 0, {ROUTE: lambda: Response(answer)})
    server.start()
    try:
        status = broker_status(MemoryElsewhere("127.0.0.1", server.port), ["Greet"])
    finally:
        server.stop()

    assert status.answers is False
