"""A broker that goes away, hangs, comes back with nothing or is another one: nothing is lost."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from uuid import UUID, uuid4

import dramatiq.worker
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.infrastructure.bus import rabbitmq, redis
from kratos_sync.infrastructure.bus.broker import BrokerUnavailable, connect
from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker
from kratos_sync.infrastructure.container import Container
from tests.infrastructure.bus.conftest import Ledger, Server, itself, new_event, on_each
from tests.infrastructure.bus.peeking import AnyBroker, is_back, left_behind, messages_in, wipe
from tests.infrastructure.bus.rabbitmq_server import ReturningRabbitmq
from tests.infrastructure.bus.working import (
    assert_nothing_is_leased_again,
    declare_actor,
    declare_listener,
    message,
    relaying,
    take,
    working,
)
from tests.suites.publishing import publish
from tests.waiting import DEADLINE_SECONDS, until

SYNC = "SyncKratosIdentity"


class Pauses(threading.Event):
    """Stops a relay, and remembers how long it wanted to wait for that."""

    def __init__(self) -> None:
        super().__init__()
        self.longest = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.longest = max(self.longest, timeout)
        return super().wait(timeout)


@contextmanager
def serving(container: Container, broker: AnyBroker) -> Iterator[Pauses]:
    """Relay and worker, as they run."""
    container.broker.override(broker)
    declare_actor(container)
    pauses = Pauses()
    with relaying(container.relay(), pauses), working(broker, poll_milliseconds=1_000):
        yield pauses


def with_lease_of(container: Container, lease_seconds: int) -> None:
    settings = container.settings()
    container.settings.override(settings.model_copy(update={"lease_seconds": lease_seconds}))


@pytest.fixture
def long_leases(container: Container) -> None:
    """Whatever waits for a lease to run out does not end in time."""
    with_lease_of(container, 3_600)


def say(container: Container, ledger: Ledger) -> None:
    """Let Kratos say something, and see that it is recorded."""
    assert publish(container.event_bus(), new_event(), Provenance("test"))


def synced(ledger: Ledger) -> list[UUID]:
    """What was consumed, as often as it was."""
    statement = "SELECT event_id FROM kratos_sync.attempts WHERE consumer = :consumer"
    return [row[0] for row in ledger.execute(statement, consumer=SYNC)]


@itself
@pytest.mark.usefixtures("long_leases")
def test_work_resumes_within_ten_seconds_of_its_return(
    container: Container, ledger: Ledger, server: Server, its_broker: AnyBroker
) -> None:
    """Those are the pauses between two attempts of relay and worker; all else is a moment."""
    with serving(container, its_broker) as pauses, capture_logs() as logged:
        say(container, ledger)
        until(lambda: not ledger.pending())

        server.go_away()
        for _ in range(3):
            say(container, ledger)
        until(lambda: [line["event"] for line in logged].count("broker_unavailable") >= 3)
        assert len(ledger.pending()) == 3
        server.come_back()
        back = monotonic()
        until(lambda: not ledger.pending())

    print(f"\nwork was done {monotonic() - back:.1f} s after the broker's return")
    assert len(synced(ledger)) == 4
    assert pauses.longest + dramatiq.worker.CONSUMER_RESTART_DELAY_SECS < 10


@itself
@pytest.mark.usefixtures("long_leases")
def test_another_server_that_knows_nothing_does_as_well(
    container: Container, ledger: Ledger, server: Server, its_broker: AnyBroker
) -> None:
    with serving(container, its_broker):
        say(container, ledger)
        until(lambda: not ledger.pending())

        server.go_away()
        say(container, ledger)
        server.come_back(wiped=True)
        until(lambda: not ledger.pending())

    assert len(synced(ledger)) == 2


@on_each
def test_a_wiped_broker_costs_at_most_a_lease(
    container: Container, ledger: Ledger, broker: AnyBroker
) -> None:
    with_lease_of(container, lease_seconds=5)
    events = [new_event() for _ in range(50)]
    ledger.record(*events)
    container.relay().turn()
    assert ledger.count("leased") == 50
    wipe(broker)
    assert ledger.count("due_at <= now() + interval '5 s'") == 50

    with serving(container, broker):
        until(lambda: not ledger.pending())

    assert sorted(synced(ledger)) == [event.id for event in events]


@on_each
def test_a_broker_that_is_wiped_under_a_running_worker_stops_nobody(broker: AnyBroker) -> None:
    received = declare_listener(broker, "mail")
    with working(broker):
        broker.enqueue_many([message("mail", number=0)])
        assert take(received, 1) == [0]

        wipe(broker)

        broker.enqueue_many([message("mail", number=1)])
        assert take(received, 1) == [1]
    assert left_behind(broker) == set()


def test_what_was_being_processed_meanwhile_is_not_stranded(
    server: Server, its_broker: AnyBroker
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def take_time(_: object) -> None:
        begun.set()
        assert go_on.wait(DEADLINE_SECONDS)

    received = declare_listener(its_broker, "mail", perform=take_time)
    its_broker.enqueue_many([message("mail", number=number) for number in range(6)])
    with working(its_broker, threads=3):
        assert begun.wait(DEADLINE_SECONDS)
        server.go_away()
        go_on.set()
        until(lambda: received.qsize() == 2)
        server.come_back()
        until(lambda: received.qsize() >= 6 and not left_behind(its_broker))

    assert left_behind(its_broker) == set()
    assert set(take(received, received.qsize())) == set(range(6))


def test_a_thread_that_is_done_while_the_broker_is_away_does_not_wait_for_it(
    server: Server, its_broker: AnyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dramatiq would keep it waiting, five seconds at a time, and with it the other queues."""
    monkeypatch.setattr(dramatiq.worker, "POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 3_600)
    begun, go_on = threading.Event(), threading.Event()

    def take_time(_: object) -> None:
        begun.set()
        assert go_on.wait(DEADLINE_SECONDS)

    declare_listener(its_broker, "mail", perform=take_time)
    its_broker.enqueue_many([message("mail", number=0)])
    with working(its_broker, threads=2) as worker:
        assert begun.wait(DEADLINE_SECONDS)
        server.go_away()
        go_on.set()
        until(lambda: worker.work_queue.unfinished_tasks == 0)


def test_a_broker_that_hangs_is_unavailable_and_leased_deliveries_are_released(
    container: Container, ledger: Ledger, server: Server, its_broker: AnyBroker
) -> None:
    container.broker.override(its_broker)
    relay = container.relay()
    relay.turn()
    its_broker.ping()
    ledger.record(new_event())

    server.halt()
    try:
        began = monotonic()
        with pytest.raises(BrokerUnavailable):
            relay.turn()
        took = monotonic() - began
    finally:
        server.go_on()

    print(f"\nit was known to hang after {took:.1f} s")
    limits = (2 * redis.SOCKET_TIMEOUT_SECONDS, rabbitmq.ANSWER_SECONDS)
    assert max(limits) < 10
    assert took < 2 * max(limits)  # it waited once, on a machine that may be busy
    assert ledger.count("NOT leased AND due_at <= now()") == 1
    until(lambda: is_back(its_broker))
    relay.turn()
    assert len(messages_in(its_broker, SYNC)) == 1


def test_a_worker_stops_while_the_broker_hangs(server: Server, its_broker: AnyBroker) -> None:
    received = declare_listener(its_broker, "mail", "parcels", "telegrams")
    its_broker.enqueue_many([message("mail", number=0)])
    try:
        with working(its_broker, threads=2):
            assert take(received, 1) == [0]
            server.halt()
            began = monotonic()
        its_broker.close()
        took = monotonic() - began
    finally:
        server.go_on()

    print(f"\nstopped after {took:.1f} s")
    assert took < 30


def test_a_rabbitmq_short_of_disk_is_unavailable_and_nothing_is_leased_over_and_over(
    container: Container, ledger: Ledger, rabbitmq_server: ReturningRabbitmq
) -> None:
    """It lets everybody connect, and nobody publish."""
    broker = connect(SecretStr(rabbitmq_server.url), namespace=f"test-{uuid4().hex}")
    container.broker.override(broker)
    with rabbitmq_server.short_of_disk():
        assert_nothing_is_leased_again(container, ledger)
    until(lambda: is_back(broker))
    container.relay().turn()
    assert len(messages_in(broker, SYNC)) == 1
    broker.close()


def test_what_rabbitmq_confirmed_survives_its_crash(rabbitmq_server: ReturningRabbitmq) -> None:
    broker = ConfirmingRabbitmqBroker(rabbitmq_server.url, namespace=f"test-{uuid4().hex}")
    broker.enqueue_many([message("mail", number=number) for number in range(200)])

    rabbitmq_server.go_away()
    rabbitmq_server.come_back()

    assert len(messages_in(broker, "mail")) == 200
    broker.close()


def test_a_rabbitmq_queue_made_otherwise_is_used_as_it_is_with_a_warning(
    amqp_url: str,
) -> None:
    import pika

    broker = ConfirmingRabbitmqBroker(amqp_url, namespace=f"test-{uuid4().hex}")
    name = broker.name_at_server("mail")
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        connection.channel().queue_declare(name, durable=True, arguments={"x-max-length": 9})
        with capture_logs() as logs:
            broker.enqueue_many([message("mail", number=1)])
        assert [(line["event"], line["queues"]) for line in logs] == [
            ("queue_used_as_it_is", [name])
        ]
        assert connection.channel().queue_delete(name).method.message_count == 1
    with pytest.raises(BrokerUnavailable):
        broker.enqueue_many([message("mail", number=2)])
    broker.enqueue_many([message("mail", number=2)])
    assert len(messages_in(broker, "mail")) == 1
    broker.close()
