"""Connections to Redis that break, and workers that die: nothing is stranded."""

import threading
from time import monotonic
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis
from dramatiq.errors import ConnectionClosed

from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker
from tests.infrastructure.bus.peeking import left_behind, put
from tests.infrastructure.bus.servers import ReturningValkey, Wire
from tests.infrastructure.bus.working import declare_listener, message, take, working
from tests.waiting import DEADLINE_SECONDS, until


def broker_at(url: str, namespace: str = "test") -> WakefulRedisBroker:
    return WakefulRedisBroker(redis.Redis.from_url(url, socket_timeout=2), namespace=namespace)


def test_what_was_fetched_when_the_answer_was_lost_comes_again(broker_url: str) -> None:
    namespace = f"test-{uuid4().hex}"
    near = broker_at(broker_url, namespace)
    near.enqueue_many([message("mail", number=number) for number in range(3)])
    near.do_qsize("mail")  # so that the server knows the script, and executes the fetch at once

    with Wire(urlsplit(broker_url).port or 6379) as wire:
        broker = broker_at(f"redis://127.0.0.1:{wire.port}/0", namespace)
        declare_listener(broker, "mail")
        consumer = broker.consume("mail", prefetch=8, timeout=50)
        wire.lose_answer_to(b"\r\nfetch\r\n")
        with pytest.raises(ConnectionClosed):
            until(lambda: next(consumer))
        assert wire.lost.wait(DEADLINE_SECONDS)
        # They are this process' now, as far as Redis knows, and it has not seen them.
        assert near.client.llen(f"{namespace}:mail") == 0

        consumer = broker.consume("mail", prefetch=8, timeout=50)
        again = [until(lambda: next(consumer)) for _ in range(3)]
        for proxy in again:
            consumer.ack(proxy)
        broker.close()

    assert sorted(proxy.kwargs["number"] for proxy in again) == [0, 1, 2]
    assert left_behind(near) == set()
    near.close()


def test_what_was_fetched_beside_garbage_when_the_connection_broke_comes_again(
    broker_url: str,
) -> None:
    namespace = f"test-{uuid4().hex}"
    near = broker_at(broker_url, namespace)
    near.enqueue_many([message("mail", number=1)])
    put(near, "mail", b"hello")

    with Wire(urlsplit(broker_url).port or 6379) as wire:
        far = redis.Redis.from_url(f"redis://127.0.0.1:{wire.port}/0", retry=None, socket_timeout=2)
        broker = WakefulRedisBroker(far, namespace=namespace)
        declare_listener(broker, "mail")
        consumer = broker.consume("mail", prefetch=8, timeout=50)
        wire.lose_answer_to(b"SMEMBERS")
        with pytest.raises(ConnectionClosed):
            until(lambda: next(consumer))

        consumer = broker.consume("mail", prefetch=8, timeout=50)
        proxy = until(lambda: next(consumer))
        consumer.ack(proxy)
        broker.close()

    assert left_behind(near) == set()
    near.close()


def test_messages_survive_connections_that_are_killed_while_they_are_processed(
    valkey: ReturningValkey,
) -> None:
    broker = broker_at(valkey.url)
    begun, go_on = threading.Event(), threading.Event()

    def take_time(_: object) -> None:
        begun.set()
        assert go_on.wait(DEADLINE_SECONDS)

    received = declare_listener(broker, "mail", perform=take_time)
    broker.enqueue_many([message("mail", number=number) for number in range(20)])
    with working(broker):
        assert begun.wait(DEADLINE_SECONDS)
        for kind in ("normal", "pubsub"):
            broker.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        go_on.set()

        until(lambda: not left_behind(broker))
        broker.enqueue_many([message("mail", number=20)])
        until(lambda: not left_behind(broker))
    assert {received.get() for _ in range(received.qsize())} == set(range(21))
    broker.close()


def test_a_dead_workers_messages_come_back_after_its_heartbeat_timeout(
    broker: WakefulRedisBroker, broker_url: str
) -> None:
    dying = broker_at(broker_url, broker.namespace)
    declare_listener(dying, "mail")
    broker.enqueue_many([message("mail", number=number) for number in range(3)])
    fetched = next(dying.consume("mail", prefetch=6, timeout=50))
    last_heartbeat = monotonic()
    assert fetched is not None
    dying.close()

    received = declare_listener(broker, "mail")
    broker.heartbeat_timeout = 400
    with working(broker):
        assert sorted(take(received, 3)) == [0, 1, 2]
        assert monotonic() - last_heartbeat >= 0.4 - 0.01
        until(lambda: not left_behind(broker))


def test_messages_of_a_live_worker_are_not_taken_from_it(
    broker: WakefulRedisBroker, broker_url: str
) -> None:
    working_elsewhere = broker_at(broker_url, broker.namespace)
    declare_listener(working_elsewhere, "mail")
    broker.enqueue_many([message("mail", number=0)])
    consumer = working_elsewhere.consume("mail", prefetch=1, timeout=20)
    fetched = next(consumer)
    assert fetched is not None

    heartbeats, name = f"{broker.namespace}:__heartbeats__", working_elsewhere.broker_id
    broker.client.zincrby(heartbeats, -2 * broker.heartbeat_timeout, name)
    # It looks for more now and then, as it does while its threads are busy.
    working_elsewhere.do_fetch("mail", 0)

    received = declare_listener(broker, "mail")
    with working(broker):
        broker.enqueue_many([message("mail", number=1), message("mail", number=2)])
        assert take(received, 2) == [1, 2]
        assert received.empty()
    consumer.ack(fetched)
    assert left_behind(broker) == set()
    working_elsewhere.close()
