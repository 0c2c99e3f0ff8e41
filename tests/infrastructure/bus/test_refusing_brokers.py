"""Brokers that answer everybody and take nothing, and names at them that mean something else."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pika
import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import Engine, make_url
from structlog.testing import capture_logs

from kratos_sync.infrastructure.bus.broker import BrokerUnavailable, broker_status, connect
from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker
from kratos_sync.infrastructure.bus.relay import LONGEST_REFUSED_SECONDS
from kratos_sync.infrastructure.container import Container, broker_namespace
from tests.infrastructure.bus.conftest import Ledger, names_logged, new_event
from tests.infrastructure.bus.peeking import messages_in
from tests.infrastructure.bus.rabbitmq_server import ReturningRabbitmq
from tests.infrastructure.bus.servers import ReturningValkey
from tests.infrastructure.bus.working import (
    declare_listener,
    message,
    relaying,
    take,
    working,
)
from tests.waiting import until

SYNC = "SyncKratosIdentity"
OPERATING = Path(__file__).parents[3] / "docs" / "operating.md"


def fill_up(client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1")


def become_a_replica(client: redis.Redis) -> None:
    client.config_set("replica-serve-stale-data", "yes")
    client.replicaof("127.0.0.1", "1")


def forbid_writing(client: redis.Redis) -> None:
    client.acl_setuser("default", enabled=True, nopass=True, categories=["+@all", "-@write"])


def forbid_publishing(client: redis.Redis) -> None:
    client.acl_setuser("default", enabled=True, nopass=True, commands=["-publish"])


def want_a_replica(client: redis.Redis) -> None:
    client.config_set("min-replicas-to-write", "1")


REFUSING = [fill_up, become_a_replica, forbid_writing, forbid_publishing, want_a_replica]


@pytest.fixture
def refused(valkey: ReturningValkey) -> WakefulRedisBroker:
    return WakefulRedisBroker.at(SecretStr(valkey.url), namespace=f"test-{uuid4().hex}")


@pytest.mark.parametrize("refuse", REFUSING)
def test_a_redis_that_takes_no_messages_is_away_and_says_why(
    valkey: ReturningValkey, refused: WakefulRedisBroker, refuse: Callable[[redis.Redis], None]
) -> None:
    refused.ping()
    assert broker_status(refused, [SYNC]).answers
    with redis.Redis.from_url(valkey.url) as client:
        refuse(client)
        with pytest.raises(
            BrokerUnavailable, match=r"OutOfMemory|ReadOnly|NoPermission|NOREPLICAS"
        ):
            refused.ping()
        assert not broker_status(refused, [SYNC]).answers
    refused.close()


def test_a_ping_leaves_nothing_behind_and_reaches_nobody(refused: WakefulRedisBroker) -> None:
    received = declare_listener(refused, "mail")
    with working(refused):
        for _ in range(3):
            refused.ping()
        refused.enqueue_many([message("mail", number=0)])
        assert take(received, 1) == [0]
    keys = {key.decode() for key in refused.client.scan_iter(f"{refused.namespace}:*")}
    assert not [key for key in keys if "__ping__" in key]
    refused.close()


def test_a_relay_leases_nothing_for_a_redis_that_is_full_whatever_wakes_it(
    container: Container, ledger: Ledger, valkey: ReturningValkey, refused: WakefulRedisBroker
) -> None:
    container.broker.override(refused)
    statement = "SELECT xmin::text, due_at, leased FROM kratos_sync.deliveries ORDER BY event_id"
    ledger.record(*[new_event() for _ in range(100)])
    with redis.Redis.from_url(valkey.url) as client:
        fill_up(client)
        with capture_logs() as logged, relaying(container.relay()):

            def failures() -> int:
                return [line["event"] for line in logged].count("broker_unavailable")

            began = monotonic()
            until(lambda: failures() >= 1)
            before = ledger.execute(statement)
            until(lambda: container.wake_relay()() or failures() >= 3)
            assert ledger.execute(statement) == before
            assert not any(row.leased for row in before)
            assert failures() <= monotonic() - began + 2

            client.config_set("maxmemory", "0")
            until(lambda: messages_in(refused, SYNC))
    refused.close()


def test_a_relay_pauses_ever_longer_for_a_broker_that_answers_well_and_then_refuses(
    container: Container, ledger: Ledger, refused: WakefulRedisBroker
) -> None:
    ledger.record(new_event())
    relay, paused = container.relay(), []

    class Refusing:
        def ping(self) -> None:
            pass

        def load(self, queue_name: str) -> object:
            return refused.load(queue_name)

        def enqueue_many(self, _: object) -> None:
            raise BrokerUnavailable("Refused")

    def rest(seconds: float, stopped: threading.Event) -> None:
        paused.append(seconds)
        if len(paused) == 12:
            stopped.set()

    relay._broker = Refusing()  # type: ignore[assignment]
    relay._rest = rest  # type: ignore[method-assign]  # time does not pass
    relay.run(threading.Event())

    assert paused[:6] == [1, 2, 4, 8, 16, LONGEST_REFUSED_SECONDS]
    assert max(paused) == LONGEST_REFUSED_SECONDS
    refused.close()


WRONG = {"": "string", ".msgs": "list"}


@pytest.mark.parametrize("end", WRONG)
def test_a_key_of_a_wrong_type_is_moved_aside_and_holds_nobody_up(
    container: Container, ledger: Ledger, broker: WakefulRedisBroker, end: str
) -> None:
    key = f"{broker.namespace}:{SYNC}{end}"
    broker.client.set(key, "somebody else's")
    ledger.record(new_event(), new_event())

    with capture_logs() as logged:
        container.relay().turn()
        container.relay().turn()

    assert len(messages_in(broker, SYNC)) == 1
    assert broker.client.get(f"{key}:wrong-type") == b"somebody else's"
    assert [line["event"] for line in logged].count("wrong_type_moved_aside") == 1


@pytest.mark.parametrize("name", ["mail", "mail.msgs", "__heartbeats__", "__acks__.{worker}.mail"])
@pytest.mark.parametrize("running", [False, True])
def test_a_worker_goes_on_after_a_key_of_a_wrong_type(
    broker: WakefulRedisBroker, name: str, running: bool
) -> None:
    received = declare_listener(broker, "mail")
    key = f"{broker.namespace}:{name.format(worker=broker.broker_id)}"

    def spoil() -> None:
        broker.client.delete(key)
        broker.client.set(key, "somebody else's")

    if not running:
        spoil()
    with working(broker):
        if running:
            broker.enqueue_many([message("mail", number=0)])
            assert take(received, 1) == [0]
            spoil()
        broker.enqueue_many([message("mail", number=1)])
        if running and "acks" in name:
            # What was just fetched is lost with the key, and would come again with its lease.
            until(lambda: broker.client.exists(f"{key}:wrong-type"))
            broker.enqueue_many([message("mail", number=1)])
        assert take(received, 1) == [1]


def documented_acl(page: Path = OPERATING) -> list[str]:
    (given,) = re.findall(r"^ACL SETUSER (.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return str(given).split()


def test_the_documented_rights_at_redis_are_enough_and_no_more(
    container: Container, ledger: Ledger, engine: Engine, valkey: ReturningValkey
) -> None:
    rights = documented_acl()
    with redis.Redis.from_url(valkey.url) as client:
        client.execute_command("ACL SETUSER", *rights)
        client.execute_command("ACL SETUSER", "default", "resetkeys", "~none")
        client.acl_log_reset()
    url = make_url(valkey.url).set(username="kratos_sync", password="password")
    broker = connect(SecretStr(url.render_as_string(hide_password=False)), broker_namespace(engine))
    assert isinstance(broker, WakefulRedisBroker)
    container.broker.override(broker)
    received = declare_listener(broker, SYNC)

    ledger.record(new_event())
    broker.ping()
    with working(broker):
        container.relay().turn()
        assert len(take(received, 1)) == 1
        assert broker_status(broker, [SYNC]).answers
        broker.do_fetch(SYNC, 1)
        until(lambda: broker.load(SYNC).unacknowledged == 0)
    for forbidden in (
        broker.client.flushall,
        lambda: broker.client.get("another"),
        lambda: broker.client.publish("another", "x"),
        lambda: broker.client.config_get("*"),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            forbidden()
    broker.close()


def test_deployments_on_one_redis_have_queues_of_their_own(
    engine: Engine, empty_database_url: str
) -> None:
    from kratos_sync.infrastructure.migrations import migrate
    from kratos_sync.infrastructure.postgres.engine import connect as connect_to

    other = connect_to(SecretStr(empty_database_url), pool_size=2)
    migrate(other)
    names = {broker_namespace(engine), broker_namespace(other)}
    other.dispose()

    assert len(names) == 2
    assert all(re.fullmatch(r"kratos-sync\.[0-9a-f]{12}", name) for name in names)
    assert broker_namespace(engine) in names


def test_the_service_uses_the_deployments_queues(container: Container, engine: Engine) -> None:
    container.broker.reset_override()

    broker = container.broker()

    assert broker.namespace == broker_namespace(engine)
    broker.close()


OTHER_ARGUMENTS = [
    {"durable": True, "arguments": {"x-max-length": 10_000, "x-overflow": "reject-publish"}},
    {"durable": True, "arguments": {"x-queue-type": "quorum"}},
]


@pytest.mark.parametrize("arguments", OTHER_ARGUMENTS)
def test_a_queue_of_rabbitmq_that_is_there_with_other_arguments_is_used_as_it_is(
    container: Container,
    ledger: Ledger,
    rabbitmq_server: ReturningRabbitmq,
    arguments: dict[str, object],
) -> None:
    broker = connect(SecretStr(rabbitmq_server.url), namespace=f"test-{uuid4().hex}")
    name = f"{broker.namespace}.{SYNC}"
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url))
    connection.channel().queue_declare(name, **arguments)  # type: ignore[arg-type]
    container.broker.override(broker)
    ledger.record(new_event())
    received = declare_listener(broker, SYNC)

    with capture_logs() as logged:
        container.relay().turn()
        with working(broker):
            assert len(take(received, 1)) == 1

    assert "queue_used_as_it_is" in names_logged(logged)
    connection.channel().queue_delete(name)
    connection.close()
    broker.close()


def test_status_says_so_of_a_rabbitmq_that_takes_no_messages(
    rabbitmq_server: ReturningRabbitmq,
) -> None:
    broker = connect(SecretStr(rabbitmq_server.url), namespace=f"test-{uuid4().hex}")
    until(lambda: broker_status(broker, [SYNC]).answers)
    with rabbitmq_server.short_of_disk():
        assert not broker_status(broker, [SYNC]).answers
    until(lambda: broker_status(broker, [SYNC]).answers)
    broker.close()
