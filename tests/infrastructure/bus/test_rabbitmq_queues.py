"""The type of RabbitMQ's queues: the one that the URL names, or else an error says what to do."""

from collections.abc import Iterator
from uuid import uuid4

import pika
import pytest
from dramatiq.errors import ConnectionClosed
from pydantic import SecretStr

from kratos_sync.infrastructure.bus import rabbitmq
from kratos_sync.infrastructure.bus.broker import BrokerUnavailable, broker_status, connect
from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker
from kratos_sync.infrastructure.bus.rabbitmq_requests import answering
from tests.infrastructure.bus.peeking import wipe
from tests.infrastructure.bus.rabbitmq_server import ReturningRabbitmq
from tests.infrastructure.bus.working import declare_listener, message, take, working
from tests.waiting import until


def broker_of(url: str, namespace: str) -> ConfirmingRabbitmqBroker:
    broker = connect(SecretStr(url), namespace)
    assert isinstance(broker, ConfirmingRabbitmqBroker)
    return broker


@pytest.fixture
def classic(amqp_url: str) -> Iterator[ConfirmingRabbitmqBroker]:
    broker = broker_of(amqp_url, f"test-{uuid4().hex}")
    broker.declare_queue("mail")
    yield broker
    wipe(broker)
    broker.close()


@pytest.fixture
def quorum(amqp_url: str, classic: ConfirmingRabbitmqBroker) -> Iterator[ConfirmingRabbitmqBroker]:
    broker = broker_of(f"{amqp_url}?queue_type=quorum", classic.namespace)
    yield broker
    broker.close()


def is_quorum_queue(broker: ConfirmingRabbitmqBroker, queue: str) -> bool:
    """Whether it may be declared as one."""
    arguments = {"x-queue-type": "quorum"}
    with pika.BlockingConnection(broker.parameters) as connection:
        try:
            connection.channel().queue_declare(
                broker.name_at_server(queue), durable=True, arguments=arguments
            )
        except pika.exceptions.ChannelClosedByBroker:
            return False
    return True


@pytest.mark.parametrize("first", ["relay", "worker"])
def test_a_queue_is_made_of_the_type_that_the_url_names(
    quorum: ConfirmingRabbitmqBroker, first: str
) -> None:
    received = declare_listener(quorum, "mail")
    if first == "worker":
        quorum.consume("mail").close()
    quorum.enqueue_many([message("mail", number=number) for number in range(20)])
    with working(quorum):
        assert sorted(take(received, 20)) == list(range(20))
    assert quorum.waiting(["mail", "none"], 2) == {"mail": 0, "none": 0}
    assert is_quorum_queue(quorum, "mail")


def test_a_queue_of_another_type_takes_nothing_and_status_says_what_to_do(
    classic: ConfirmingRabbitmqBroker, quorum: ConfirmingRabbitmqBroker
) -> None:
    classic.enqueue_many([message("mail", number=0)])
    name = classic.name_at_server("mail")

    with pytest.raises(BrokerUnavailable) as refused:
        quorum.enqueue_many([message("mail", number=1)])
    said = str(refused.value)
    assert said.startswith(f"the queue {name} is no quorum queue: delete it")
    assert broker_status(quorum, ["mail"]).error == said

    with pika.BlockingConnection(classic.parameters) as connection:
        assert connection.channel().queue_delete(name).method.message_count == 1
    quorum.enqueue_many([message("mail", number=1)])
    assert is_quorum_queue(quorum, "mail")


def test_without_a_type_in_the_url_a_queue_is_used_whatever_its_type(
    classic: ConfirmingRabbitmqBroker, quorum: ConfirmingRabbitmqBroker
) -> None:
    quorum.enqueue_many([message("mail", number=0)])
    classic.enqueue_many([message("mail", number=1)])
    assert classic.waiting(["mail"], 2) == {"mail": 2}


def test_a_consumer_that_gets_nothing_while_messages_wait_is_made_anew(
    classic: ConfirmingRabbitmqBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when it began to consume from a quorum queue that had no leader."""
    monkeypatch.setattr(rabbitmq, "LOOK_SECONDS", 0.05)
    declare_listener(classic, "mail")
    classic.enqueue_many([message("mail", number=number) for number in range(3)])
    consumer = classic.consume("mail", prefetch=2, timeout=50)
    held = until(lambda: next(consumer))
    # RabbitMQ sends no more before it is acknowledged, and here there seems to be room.
    classic._in_flight["mail"].clear()

    with pytest.raises(ConnectionClosed, match="messages wait and do not come"):
        until(lambda: next(consumer), seconds=10)

    consumer.close()
    another = classic.consume("mail", prefetch=2, timeout=50)
    again = until(lambda: next(another))
    assert again.kwargs == held.kwargs
    another.close()


def test_a_server_that_answers_nothing_ends_the_connection(
    rabbitmq_server: ReturningRabbitmq,
) -> None:
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url)) as connection:
        channel = connection.channel()
        with answering(connection, 0.2):
            channel.queue_declare("a queue", exclusive=True)
        rabbitmq_server.halt()
        try:
            with pytest.raises(pika.exceptions.AMQPError), answering(connection, 0.2):
                channel.queue_declare("another queue", exclusive=True)
        finally:
            rabbitmq_server.go_on()
        assert connection.is_closed
