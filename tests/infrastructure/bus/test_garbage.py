"""Whoever can write to Redis can write anything: it is logged and dropped, and stops nobody."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import Any
from uuid import uuid4

import dramatiq
import pytest
import redis
from structlog.testing import capture_logs

from infrastructure.bus.broker import WakefulRedisBroker
from tests.infrastructure.bus.conftest import left_behind, names_logged
from tests.infrastructure.bus.waiting import until
from tests.infrastructure.bus.working import declare_listener, hear, message, working

ID = "an id of its own"


@dataclass(frozen=True)
class Office:
    broker: WakefulRedisBroker
    worker: dramatiq.Worker
    heard: "SimpleQueue[Any]"


@pytest.fixture(scope="module")
def office(broker_url: str) -> Iterator[Office]:
    """A worker that all kinds of garbage come to, one after the other."""
    client = redis.Redis.from_url(broker_url, socket_timeout=5)
    broker = WakefulRedisBroker(client, namespace=f"test-{uuid4().hex}")
    heard = declare_listener(broker, "mail", "telegrams")
    with working(broker) as worker:
        yield Office(broker, worker, heard)
    broker.close()


def changed(**changes: Any) -> bytes:
    """A good message but for these fields."""
    good = message("mail", number=-1).asdict()
    return json.dumps({**good, "options": {"redis_message_id": ID}, **changes}).encode()


def put(broker: WakefulRedisBroker, data: bytes | None, message_id: str | bytes = ID) -> None:
    key = f"{broker.namespace}:mail"
    if data is not None:
        broker.client.hset(f"{key}.msgs", message_id, data)
    broker.client.rpush(key, message_id)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\xff\xfe\x00", id="bytes that are no text"),
        pytest.param(b"hello", id="text that is no JSON"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"null", id="null"),
        pytest.param(b"17", id="a number"),
        pytest.param(b'"hello"', id="a string"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="an object"),
        pytest.param(b"[" * 100_000, id="a deep well"),
        pytest.param(changed(actor_name="drop_all_tables"), id="another actor"),
        pytest.param(changed(actor_name=None), id="no actor"),
        pytest.param(changed(actor_name=["deliver"]), id="an actor in a list"),
        pytest.param(changed(queue_name="parcels"), id="a queue that there is not"),
        pytest.param(changed(queue_name="telegrams"), id="a neighbour's queue"),
        pytest.param(changed(queue_name=None), id="no queue"),
        pytest.param(changed(args=5), id="arguments that are a number"),
        pytest.param(changed(kwargs=5, options={"redis_message_id": ID, "throws": "x"}), id="bait"),
        pytest.param(changed(kwargs=[1]), id="keyword arguments in a list"),
        pytest.param(changed(options=None), id="no options"),
        pytest.param(changed(options=[]), id="options in a list"),
        pytest.param(changed(options={}), id="no redis_message_id"),
        pytest.param(changed(options={"redis_message_id": 7}), id="a redis_message_id of 7"),
        pytest.param(changed(options={"redis_message_id": ID, "eta": 10**15}), id="an eta"),
        pytest.param(changed(options={"redis_message_id": ID, "eta": None}), id="an eta of null"),
        pytest.param(changed(future=1), id="a field too many"),
        pytest.param(None, id="an id without a message"),
    ],
)
def test_garbage_is_dropped_and_stops_no_neighbour(office: Office, garbage: bytes | None) -> None:
    broker, worker, heard = office.broker, office.worker, office.heard
    with capture_logs() as logged:
        broker.enqueue_many([message("mail", number=1)])
        put(broker, garbage)
        broker.enqueue_many([message("mail", number=2), message("telegrams", number=3)])

        assert sorted(hear(heard, 3, seconds=10)) == [1, 2, 3]
        until(lambda: not left_behind(broker), seconds=10)
    assert heard.empty()
    assert all(thread.is_alive() for thread in worker.workers)
    assert all(thread.is_alive() for thread in worker.consumers.values())
    assert "garbage_dropped" in names_logged(logged)


def test_a_garbage_log_line_quotes_nothing_of_it(broker: WakefulRedisBroker) -> None:
    declare_listener(broker, "mail")
    put(broker, b"ada@example.org")

    with capture_logs() as logged, working(broker):
        until(lambda: not left_behind(broker))
    assert [line for line in logged if line["event"] == "garbage_dropped"] == [
        {"event": "garbage_dropped", "log_level": "warning", "queue": "mail", "messages": 1}
    ]


def test_garbage_may_have_an_id_that_is_no_text(broker: WakefulRedisBroker) -> None:
    heard = declare_listener(broker, "mail")
    put(broker, b"hello", b"\xff\xfe\xfd")
    broker.enqueue_many([message("mail", number=1)])

    with working(broker):
        assert hear(heard, 1, seconds=10) == [1]
        until(lambda: not left_behind(broker), seconds=10)


def test_much_garbage_is_no_way_to_hold_up_a_queue(broker: WakefulRedisBroker) -> None:
    heard = declare_listener(broker, "mail")
    key = f"{broker.namespace}:mail"
    with broker.client.pipeline() as pipe:
        for number in range(300):
            pipe.hset(f"{key}.msgs", f"garbage {number}", "…")
            pipe.rpush(key, f"garbage {number}")
        pipe.execute()
    broker.enqueue_many([message("mail", number=1)])

    began = monotonic()
    with working(broker, poll_milliseconds=1_000):
        assert hear(heard, 1) == [1]
        until(lambda: not left_behind(broker))
        # A pause of a poll after each handful would take more than a minute.
        assert monotonic() - began < 20


def test_garbage_is_dropped_while_good_messages_are_under_way(broker: WakefulRedisBroker) -> None:
    heard = declare_listener(broker, "mail")
    for number in range(100):
        broker.enqueue_many([message("mail", number=number)])
        broker.client.hset(f"{broker.namespace}:mail.msgs", f"garbage {number}", "…")
        broker.client.rpush(f"{broker.namespace}:mail", f"garbage {number}")

    with working(broker, threads=4):
        assert sorted(hear(heard, 100)) == list(range(100))
        until(lambda: not left_behind(broker))
    assert heard.empty()
