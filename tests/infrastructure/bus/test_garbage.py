"""Whoever can write to a broker can write anything: it is logged and dropped, and stops nobody."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import Any
from uuid import uuid4

import dramatiq
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.broker import connect
from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker
from kratos_sync.infrastructure.bus.wire_format import MOST_BYTES
from tests.infrastructure.bus.conftest import names_logged, on_both
from tests.infrastructure.bus.peeking import AnyBroker, left_behind, put
from tests.infrastructure.bus.servers import ReturningValkey
from tests.infrastructure.bus.working import declare_listener, message, take, working
from tests.waiting import until

ID = "an id of its own"


@dataclass(frozen=True)
class Office:
    broker: AnyBroker
    worker: dramatiq.Worker
    received: "SimpleQueue[Any]"


@pytest.fixture(scope="module", params=["broker_url", "amqp_url"], ids=["valkey", "rabbitmq"])
def office(request: pytest.FixtureRequest) -> Iterator[Office]:
    """A worker that all kinds of garbage come to, one after the other."""
    url = SecretStr(request.getfixturevalue(request.param))
    broker = connect(url, namespace=f"test-{uuid4().hex}")
    received = declare_listener(broker, "mail", "telegrams")
    with working(broker) as worker:
        yield Office(broker, worker, received)
    assert left_behind(broker) == set()
    broker.close()


def changed(**changes: Any) -> bytes:
    """A good message but for these fields."""
    good = message("mail", number=-1).asdict()
    return json.dumps({**good, "options": {"redis_message_id": ID}, **changes}).encode()


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
        pytest.param(
            changed(kwargs={"self": 1}, options={"redis_message_id": ID, "throws": "x"}),
            id="bait that can be called",
        ),
        pytest.param(changed(kwargs={"self": 1}), id="an argument that the actor has itself"),
        pytest.param(changed(kwargs=[1]), id="keyword arguments in a list"),
        pytest.param(changed(options=None), id="no options"),
        pytest.param(changed(options=[]), id="options in a list"),
        pytest.param(changed(options={"redis_message_id": ID, "eta": 10**15}), id="an eta"),
        pytest.param(changed(options={"redis_message_id": ID, "eta": None}), id="an eta of null"),
        pytest.param(changed(future=1), id="a field too many"),
        pytest.param(changed(kwargs={"number": "x" * MOST_BYTES}), id="more than a batch can be"),
    ],
)
def test_garbage_is_dropped_and_stops_no_neighbour(office: Office, garbage: bytes) -> None:
    broker, worker, received = office.broker, office.worker, office.received
    with capture_logs() as logged:
        broker.enqueue_many([message("mail", number=1)])
        put(broker, "mail", garbage, ID)
        broker.enqueue_many([message("mail", number=2), message("telegrams", number=3)])

        assert sorted(take(received, 3)) == [1, 2, 3]
        until(lambda: not left_behind(broker))
    assert received.empty()
    assert all(thread.is_alive() for thread in worker.workers)
    assert all(thread.is_alive() for thread in worker.consumers.values())
    assert "garbage_dropped" in names_logged(logged)


@pytest.mark.parametrize(
    ("data", "message_id"),
    [
        pytest.param(None, ID, id="an id without a message"),
        pytest.param(changed(options={}), ID, id="no redis_message_id"),
        pytest.param(changed(options={"redis_message_id": 7}), ID, id="a redis_message_id of 7"),
        pytest.param(changed(options={"redis_message_id": "\ud800"}), ID, id="half a character"),
        pytest.param(b"hello", b"\xff\xfe\xfd", id="an id that is no text"),
    ],
)
def test_garbage_in_what_only_redis_has_is_dropped(
    broker: WakefulRedisBroker, data: bytes | None, message_id: str | bytes
) -> None:
    received = declare_listener(broker, "mail")
    if data is None:
        broker.client.rpush(f"{broker.namespace}:mail", message_id)
    else:
        put(broker, "mail", data, message_id)
    broker.enqueue_many([message("mail", number=1)])

    with capture_logs() as logged, working(broker):
        assert take(received, 1) == [1]
        until(lambda: not left_behind(broker))
    assert "garbage_dropped" in names_logged(logged)


def test_a_message_that_is_too_long_is_not_even_fetched(valkey: ReturningValkey) -> None:
    broker = connect(SecretStr(valkey.url))
    declare_listener(broker, "mail")
    for number in range(5):
        put(broker, "mail", b"x" * (20 * MOST_BYTES), f"id {number}")
    before = broker.client.info("stats")["total_net_output_bytes"]

    with working(broker):
        until(lambda: not left_behind(broker))
    assert broker.client.info("stats")["total_net_output_bytes"] - before < MOST_BYTES
    broker.close()


def test_the_largest_batch_is_not_too_long() -> None:
    pointer = wire_format.write("C" * 150, [uuid4()] * wire_format.MOST_EVENT_IDS)
    assert len(message("mail", **pointer).encode()) < MOST_BYTES / 2


@on_both
def test_a_garbage_log_line_quotes_nothing_of_it(broker: AnyBroker) -> None:
    declare_listener(broker, "mail")
    put(broker, "mail", b"ada@example.org")

    def dropped() -> list[Any]:
        return [line for line in logged if line["event"] == "garbage_dropped"]

    with capture_logs() as logged, working(broker):
        until(dropped)
    assert dropped() == [
        {"event": "garbage_dropped", "log_level": "warning", "queue": "mail", "messages": 1}
    ]
    assert left_behind(broker) == set()


@on_both
def test_much_garbage_is_no_way_to_hold_up_a_queue(broker: AnyBroker) -> None:
    received = declare_listener(broker, "mail")
    put(broker, "mail", b"hello", *(f"garbage {number}" for number in range(600)))
    broker.enqueue_many([message("mail", number=1)])

    began = monotonic()
    with working(broker, poll_milliseconds=1_000):
        assert take(received, 1) == [1]
        until(lambda: not left_behind(broker))
        # A pause of a poll after each handful would take more than two minutes.
        assert monotonic() - began < 75


@on_both
def test_garbage_is_dropped_while_good_messages_are_under_way(broker: AnyBroker) -> None:
    received = declare_listener(broker, "mail")
    for number in range(100):
        broker.enqueue_many([message("mail", number=number)])
        put(broker, "mail", b"hello", f"garbage {number}")

    with working(broker, threads=4):
        assert sorted(take(received, 100)) == list(range(100))
        until(lambda: not left_behind(broker))
    assert received.empty()
    assert left_behind(broker) == set()
