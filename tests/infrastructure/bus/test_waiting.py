"""The status of the broker: what waits there."""

import socket
from time import monotonic
from uuid import uuid4

import dramatiq
import pika
import pytest
from pydantic import SecretStr

from kratos_sync.infrastructure.bus import rabbitmq, redis
from kratos_sync.infrastructure.bus.broker import TIMEOUT_SECONDS, broker_status, connect
from kratos_sync.infrastructure.bus.rabbitmq import ConfirmingRabbitmqBroker
from kratos_sync.infrastructure.bus.wire_format import ACTOR, write
from tests.infrastructure.bus.conftest import on_each
from tests.infrastructure.bus.peeking import AnyBroker
from tests.waiting import DEADLINE_SECONDS


def message(consumer: str) -> dramatiq.Message[None]:
    return dramatiq.Message(
        queue_name=consumer,
        actor_name=ACTOR,
        args=(),
        kwargs=write(consumer, [uuid4()]),
        options={},
    )


@on_each
def test_what_waits_is_counted_for_each_consumer(broker: AnyBroker) -> None:
    broker.enqueue_many([message("Greet"), message("Greet"), message("Count")])
    status = broker_status(broker, ["Greet", "Count", "Tickle"])
    assert status.answers
    assert status.messages == {"Greet": 2, "Count": 1, "Tickle": 0}


@on_each
def test_without_consumers_the_broker_is_asked_all_the_same(broker: AnyBroker) -> None:
    assert broker_status(broker, []).answers


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("redis://:secret@127.0.0.1:1/0", "ConnectionError"),
        ("amqp://ada:secret@127.0.0.1:1/", "AMQPConnectionError"),
    ],
)
def test_a_broker_that_is_away_is_an_answer(url: str, error: str) -> None:
    status = broker_status(connect(SecretStr(url)), ["Greet"])
    assert not status.answers
    assert status.error == error
    assert status.messages == {}


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_never_answers_is_not_waited_for(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other calls may wait longer than the status."""
    for module, name in (
        (redis, "SOCKET_TIMEOUT_SECONDS"),
        (rabbitmq, "OPEN_SECONDS"),
        (rabbitmq, "BLOCKED_SECONDS"),
        (rabbitmq, "ANSWER_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 2 * DEADLINE_SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        broker = connect(SecretStr(f"{scheme}://127.0.0.1:{mute.getsockname()[1]}/"))
        before = monotonic()
        assert not broker_status(broker, ["Greet"]).answers
        assert monotonic() - before < DEADLINE_SECONDS
    assert TIMEOUT_SECONDS == 1


def test_looking_at_rabbitmq_makes_no_queue(amqp_url: str) -> None:
    broker = ConfirmingRabbitmqBroker(amqp_url, namespace=f"test-{uuid4().hex}")
    assert broker_status(broker, ["Greet"]).messages == {"Greet": 0}
    with pika.BlockingConnection(pika.URLParameters(amqp_url)) as connection:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refusal:
            connection.channel().queue_declare(broker.name_at_server("Greet"), passive=True)
        assert refusal.value.reply_code == 404
