import socket
from time import monotonic
from uuid import uuid4

import dramatiq
from pydantic import SecretStr

from infrastructure.bus.broker import WakefulRedisBroker, connect
from infrastructure.bus.waiting import TIMEOUT_SECONDS, look_at
from infrastructure.bus.wire_format import ACTOR, write


def message(consumer: str) -> dramatiq.Message[None]:
    return dramatiq.Message(
        queue_name=consumer,
        actor_name=ACTOR,
        args=(),
        kwargs=write(consumer, [uuid4()]),
        options={},
    )


def test_what_waits_is_counted_for_each_consumer(broker: WakefulRedisBroker) -> None:
    broker.enqueue_many([message("Greet"), message("Greet"), message("Count")])
    told = look_at(broker, ["Greet", "Count", "Tickle"])
    assert told.answers
    assert told.messages == {"Greet": 2, "Count": 1, "Tickle": 0}


def test_without_consumers_the_broker_is_asked_all_the_same(broker: WakefulRedisBroker) -> None:
    assert look_at(broker, []).answers


def test_a_broker_that_is_away_is_an_answer() -> None:
    away = connect(SecretStr("redis://:secret@127.0.0.1:1/0"))
    told = look_at(away, ["Greet"])
    assert not told.answers
    assert told.error == "ConnectionError"
    assert told.messages == {}


def test_a_broker_that_never_answers_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        broker = connect(SecretStr(f"redis://127.0.0.1:{mute.getsockname()[1]}/0"))
        before = monotonic()
        assert look_at(broker, ["Greet"]).error == "TimeoutError"
        assert monotonic() - before < 3 * TIMEOUT_SECONDS
