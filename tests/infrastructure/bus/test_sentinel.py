"""A primary that Sentinels replace: the broker follows, and what was in flight is not stranded."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from dramatiq.errors import ConnectionClosed
from pydantic import SecretStr

from kratos_sync.infrastructure.bus.broker import BrokerUnavailable, broker_status, connect
from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker
from kratos_sync.infrastructure.bus.redis_clients import NO_PRIMARY
from tests.infrastructure.bus.peeking import is_back, left_behind
from tests.infrastructure.bus.sentinels import SERVICE, Sentinels
from tests.infrastructure.bus.working import declare_listener, message, take, working
from tests.ports import free_port
from tests.waiting import at_once, until


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    """For all tests here; the last one kills the primary."""
    with Sentinels(tmp_path_factory.mktemp("sentinels"), down_after=1.0) as sentinels:
        yield sentinels


def broker_of(url: str) -> WakefulRedisBroker:
    broker = connect(SecretStr(url), namespace=f"test-{uuid4().hex}")
    assert isinstance(broker, WakefulRedisBroker)
    return broker


def test_a_consumer_is_made_anew_for_another_primary_and_for_nothing_else(
    sentinels: Sentinels,
) -> None:
    broker = broker_of(sentinels.url)
    broker.enqueue_many([message("mail", number=number) for number in range(3)])
    consumer = broker.consume("mail", prefetch=4, timeout=10)
    declare_listener(broker, "mail")
    first = next(consumer)
    assert first is not None
    assert next(consumer) is None
    broker.client.connection_pool.proxy.master_address = ("another", 1)

    with pytest.raises(ConnectionClosed):
        next(consumer)

    consumer.requeue([first])
    broker.close()


def test_without_a_sentinel_that_knows_a_primary_the_broker_is_unavailable(
    sentinels: Sentinels,
) -> None:
    nobody = f"redis+sentinel://127.0.0.1:{free_port()}/kratos-sync/0"
    for url in (sentinels.url.replace("/kratos-sync/", "/another/"), nobody):
        broker = broker_of(url)
        with pytest.raises(BrokerUnavailable, match=NO_PRIMARY):
            broker.ping()
        assert broker_status(broker, ["mail"]).error == NO_PRIMARY
        broker.close()


def test_one_sentinel_that_answers_is_enough_and_none_is_forgotten(sentinels: Sentinels) -> None:
    broker = broker_of(sentinels.url.replace("://", f"://127.0.0.1:{free_port()},"))
    sentinels.sentinels[0].kill()
    known = broker.client.connection_pool.sentinel_manager

    def addresses() -> list[int]:
        return sorted(each.connection_pool.connection_kwargs["port"] for each in known.sentinels)

    before = addresses()
    at_once(*[lambda: known.discover_master(SERVICE)] * 16)
    assert addresses() == before
    until(lambda: is_back(broker))
    broker.close()


def test_all_that_a_broker_does_follows_a_failover(sentinels: Sentinels) -> None:
    broker = broker_of(sentinels.url)
    received = declare_listener(broker, "mail", "stuck")
    with working(broker, poll_milliseconds=200):
        broker.enqueue_many([message("mail", number=0)])
        assert take(received, 1) == [0]
        # As of a worker whose acknowledgement the replica never received.
        acks = f"{broker.namespace}:__acks__.{broker.broker_id}.mail"
        broker.client.sadd(acks, "acknowledged at the old primary")
        broker.client.hset(f"{broker.namespace}:mail.msgs", "acknowledged at the old primary", "")
        assert broker.client.wait(1, 5_000) == 1

        sentinels.primary.kill()
        until(lambda: sentinels.is_primary(sentinels.replica))
        until(lambda: is_back(broker))
        broker.enqueue_many([message("mail", number=1)])
        assert take(received, 1) == [1]
        until(lambda: broker_status(broker, ["mail"]).answers)
        # The worker's new consumer has requeued what it does not have, and found that it is none.
        until(lambda: not left_behind(broker))
    broker.close()
