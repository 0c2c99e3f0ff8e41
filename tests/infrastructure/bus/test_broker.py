"""Messages on the way through a real broker: in bulk, at once, and without a trace."""

import threading
from statistics import median
from time import monotonic, perf_counter

import pytest
import redis

from kratos_sync.infrastructure.bus.broker import BrokerUnavailable
from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker
from tests.infrastructure.bus.conftest import on_each
from tests.infrastructure.bus.peeking import AnyBroker, left_behind, messages_in
from tests.infrastructure.bus.servers import ReturningValkey
from tests.infrastructure.bus.working import declare_listener, message, take, working
from tests.waiting import DEADLINE_SECONDS, until

QUEUES = ("mail", "parcels", "telegrams")


def calls(client: "redis.Redis") -> dict[str, int]:
    """How often each command was called at the server, but for those that only look at it."""
    looks = {"ping", "info", "pubsub", "hello", "client", "scan", "config", "select"}
    statistics = client.info("commandstats").items()
    made = {name.removeprefix("cmdstat_"): command["calls"] for name, command in statistics}
    return {name: count for name, count in made.items() if name.split("|")[0] not in looks}


def listeners(broker: WakefulRedisBroker) -> int:
    """How many processes wait to be woken."""
    ((_, count),) = broker.client.pubsub_numsub(f"{broker.namespace}:wake-up")
    return int(count)


@on_each
def test_messages_enqueued_together_are_all_consumed_and_leave_nothing(
    broker: AnyBroker,
) -> None:
    received = declare_listener(broker, *QUEUES)
    broker.enqueue_many([message(QUEUES[number % 3], number=number) for number in range(60)])

    with working(broker):
        assert sorted(take(received, 60)) == list(range(60))
        until(lambda: not left_behind(broker))
    assert received.empty()
    assert left_behind(broker) == set()


def test_messages_are_enqueued_in_one_transaction(valkey: ReturningValkey) -> None:
    broker = WakefulRedisBroker(redis.Redis.from_url(valkey.url))
    before = calls(broker.client)
    broker.enqueue_many([message(QUEUES[number % 3], number=number) for number in range(30)])
    after = calls(broker.client)

    made = {name: after[name] - before.get(name, 0) for name in after}
    assert made == {"multi": 1, "hset": 3, "rpush": 3, "publish": 3, "exec": 1}
    broker.close()


@on_each
def test_messages_are_consumed_in_the_order_in_which_they_were_enqueued(
    broker: AnyBroker,
) -> None:
    received = declare_listener(broker, "mail")
    broker.enqueue_many([message("mail", number=number) for number in range(40)])

    with working(broker, threads=1):
        assert take(received, 40) == list(range(40))


@on_each
def test_a_busy_worker_does_not_wait_for_its_next_poll(broker: AnyBroker) -> None:
    received = declare_listener(broker, "mail")
    broker.enqueue_many([message("mail", number=number) for number in range(300)])
    began = monotonic()

    with working(broker, threads=1, poll_milliseconds=1_000):
        assert len(take(received, 300)) == 300
        # Two messages a poll would take two minutes and a half.
        assert monotonic() - began < 75


@on_each
def test_nothing_is_enqueued_for_nothing(broker: AnyBroker) -> None:
    broker.enqueue_many([])

    assert left_behind(broker) == set()


@on_each
def test_no_queue_has_a_delay_queue_beside_it(broker: AnyBroker) -> None:
    broker.declare_queue("mail")
    broker.declare_queue("mail")

    assert broker.get_declared_queues() == {"mail"}
    assert broker.get_declared_delay_queues() == set()


def test_a_waiting_consumer_is_woken_long_before_it_would_look(valkey: ReturningValkey) -> None:
    broker = WakefulRedisBroker(redis.Redis.from_url(valkey.url, socket_timeout=5))
    broker.declare_queue("mail")
    received = declare_listener(broker, "mail")
    consumer = broker.consume("mail", prefetch=1, timeout=3_600_000)
    waits = 0

    class Woken(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal waits
            waits += 1
            return super().wait(timeout)

    consumer._woken = broker.wakeups._events["mail"] = Woken()

    def wait_for_messages() -> None:
        for number in range(7):
            found = None
            while found is None:
                found = next(consumer)
            received.put(number)
            consumer.ack(found)

    until(lambda: listeners(broker) == 1)
    waiting = threading.Thread(target=wait_for_messages)
    waiting.start()
    for number in range(7):
        waited = number + 1
        until(lambda waited=waited: waits == waited)  # type: ignore[misc]
        broker.enqueue_many([message("mail", number=1)])
        assert take(received, 1) == [number]
    waiting.join(DEADLINE_SECONDS)
    assert not waiting.is_alive()
    broker.close()


def test_idle_workers_look_no_more_than_once_a_second_at_each_queue(
    valkey: ReturningValkey,
) -> None:
    broker = WakefulRedisBroker(redis.Redis.from_url(valkey.url, socket_timeout=5))
    declare_listener(broker, *QUEUES)
    with working(broker, poll_milliseconds=1_000):
        until(lambda: listeners(broker) == 1)
        # Each has looked once, and the script is loaded. An empty queue costs a look one LPOP.
        until(lambda: calls(broker.client).get("lpop", 0) >= len(QUEUES))
        before, began = calls(broker.client), monotonic()
        until(lambda: calls(broker.client)["lpop"] - before["lpop"] >= 2 * len(QUEUES))
        after, seconds = calls(broker.client), monotonic() - began

    made = {name: after[name] - before.get(name, 0) for name in after}
    looks = made.pop("lpop")
    print(f"\n{looks / len(QUEUES) / seconds:.2f} looks a second at each idle queue")
    assert looks <= len(QUEUES) * (seconds + 1)
    # What else a look is made of: the script, its heartbeat, and two looks for what is dead.
    assert made.pop("evalsha") <= looks + 1
    assert made.pop("zadd") <= looks + 1
    assert made.pop("zrangebyscore") <= 2 * looks + 2
    assert made.pop("lrange") <= looks + 1  # for what is too long
    assert {name for name, count in made.items() if count} == set()
    broker.close()


def test_a_lost_wake_up_costs_one_poll(broker: WakefulRedisBroker) -> None:
    received = declare_listener(broker, "mail")
    with working(broker):
        sent = message("mail", number=1)
        key = f"{broker.namespace}:mail"
        encoded = sent.copy(options={"redis_message_id": sent.message_id}).encode()
        broker.client.hset(f"{key}.msgs", sent.message_id, encoded)
        broker.client.rpush(key, sent.message_id)

        assert take(received, 1) == [1]


@on_each
def test_a_worker_that_stops_gives_back_what_it_had_not_begun(broker: AnyBroker) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def take_time(_: object) -> None:
        begun.set()
        assert go_on.wait(DEADLINE_SECONDS)

    received = declare_listener(broker, "mail", perform=take_time)
    broker.enqueue_many([message("mail", number=number) for number in range(10)])
    with working(broker, threads=1) as worker:
        assert begun.wait(DEADLINE_SECONDS)
        for thread in worker.workers:
            thread.stop()
        go_on.set()
    assert take(received, 1) == [0]

    until(lambda: len(messages_in(broker, "mail")) == 9)
    assert len(set(messages_in(broker, "mail"))) == 9


def test_a_consumer_gives_back_what_it_had_fetched_and_not_handed_over(
    broker: WakefulRedisBroker,
) -> None:
    declare_listener(broker, "mail")
    broker.enqueue_many([message("mail", number=number) for number in range(5)])
    consumer = broker.consume("mail", prefetch=8, timeout=50)
    first = next(consumer)
    assert first is not None
    assert broker.client.llen(f"{broker.namespace}:mail") == 2

    consumer.requeue([first])

    waiting = broker.client.lrange(f"{broker.namespace}:mail", 0, -1)
    assert len(waiting) == len(set(waiting)) == 5
    assert left_behind(broker) == {f"{broker.namespace}:mail", f"{broker.namespace}:mail.msgs"}


@on_each
def test_a_consumer_gets_a_message_for_each_thread_but_one_until_something_is_acknowledged(
    broker: AnyBroker,
) -> None:
    declare_listener(broker, "mail")
    broker.enqueue_many([message("mail", number=number) for number in range(5)])
    consumer = broker.consume("mail", prefetch=2 * 3, timeout=50)
    first, second = until(lambda: next(consumer)), until(lambda: next(consumer))
    assert [first.kwargs["number"], second.kwargs["number"]] == [0, 1]
    assert [next(consumer), next(consumer)] == [None, None]

    consumer.ack(first)

    third = until(lambda: next(consumer))
    assert third.kwargs["number"] == 2
    assert next(consumer) is None
    consumer.requeue([second, third])
    consumer.close()


@on_each
def test_what_threads_have_in_flight_counts_when_the_consumer_is_a_new_one(
    broker: AnyBroker,
) -> None:
    """Else a consumer that hangs would take all threads, a few more with each reconnection."""
    declare_listener(broker, "mail")
    broker.enqueue_many([message("mail", number=number) for number in range(5)])
    before = broker.consume("mail", prefetch=2 * 3, timeout=50)
    in_flight = [until(lambda: next(before)) for _ in range(2)]
    before.close()

    after = broker.consume("mail", prefetch=2 * 3, timeout=50)
    assert [next(after), next(after)] == [None, None]
    after.ack(in_flight[0])
    assert until(lambda: next(after)) is not None
    assert next(after) is None
    after.close()


@on_each
def test_a_consumer_that_hangs_leaves_a_thread_to_the_others(broker: AnyBroker) -> None:
    go_on, hanging = threading.Event(), []

    def hang(number: int) -> None:
        if number < 10:
            hanging.append(number)
            assert go_on.wait(DEADLINE_SECONDS)

    received = declare_listener(broker, *QUEUES, perform=hang)
    broker.enqueue_many([message("mail", number=number) for number in range(8)])
    with working(broker, threads=3):
        until(lambda: len(hanging) == 2)
        broker.enqueue_many([message("parcels", number=number) for number in range(10, 15)])

        assert take(received, 5) == [10, 11, 12, 13, 14]
        assert len(hanging) == 2
        go_on.set()


@on_each
def test_a_lone_message_does_not_wait_for_the_next_poll(broker: AnyBroker) -> None:
    received = declare_listener(broker, "mail")
    delays = []
    with working(broker, poll_milliseconds=3_000):
        broker.enqueue_many([message("mail", number=0)])
        assert take(received, 1) == [0]
        for number in range(15):
            until(lambda: not left_behind(broker))
            sent = perf_counter()
            broker.enqueue_many([message("mail", number=number)])
            assert take(received, 1) == [number]
            delays.append(perf_counter() - sent)

    print(f"\na lone message: {1000 * median(delays):.1f} ms")
    assert median(delays) < 1.5


def test_enqueueing_says_when_the_server_is_away(valkey: ReturningValkey) -> None:
    broker = WakefulRedisBroker(redis.Redis.from_url(valkey.url, socket_timeout=1))
    valkey.go_away()

    with pytest.raises(BrokerUnavailable):
        broker.enqueue_many([message("mail", number=1)])

    valkey.come_back()
    assert left_behind(broker) == set()
    broker.close()
