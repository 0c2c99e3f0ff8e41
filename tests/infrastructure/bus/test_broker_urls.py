"""BROKER_URL: which forms there are, and what is said of one that is wrong."""

import ssl
from uuid import uuid4

import pytest
from pydantic import SecretStr, ValidationError

from kratos_sync.infrastructure.bus import rabbitmq_hosts, redis_clients, urls
from kratos_sync.infrastructure.bus.broker import connect
from kratos_sync.infrastructure.settings import Settings
from tests.infrastructure.bus.working import declare_listener, message, take, working

SECRET = "s3cr3t"


def test_why_a_call_failed_is_found_among_its_causes_however_they_are_chained() -> None:
    first, second = OSError(), ssl.SSLError()
    second.reason = "WRONG_VERSION_NUMBER"
    first.__context__, first.__suppress_context__ = second, True
    assert urls.reason(first) == "no TLS: WRONG_VERSION_NUMBER"

    circle, other = LookupError(), KeyError()
    circle.__cause__, other.__cause__ = other, circle
    assert urls.reason(circle) == "LookupError"


def test_sentinels_have_addresses_a_service_and_a_database() -> None:
    options, sentinels = redis_clients.parse(
        f"redis+sentinel://ada:p%40ss@a:1,b,[::1]:3/main/2?sentinel_password={SECRET}"
    )
    assert sentinels == ((("a", 1), ("b", 26379), ("::1", 3)), "main", {"password": SECRET})
    assert options == {"username": "ada", "password": "p@ss", "db": 2}


def test_with_tls_servers_and_sentinels_are_verified_in_the_same_way() -> None:
    options, sentinels = redis_clients.parse("rediss+sentinel://a/main?ssl_ca_certs=/ca.pem")
    assert sentinels is not None
    assert options == sentinels.options == {"ssl": True, "ssl_ca_certs": "/ca.pem"}


def test_a_password_is_not_taken_for_a_host() -> None:
    options, sentinels = redis_clients.parse(f"redis+sentinel://:{SECRET},x@a:1/main")
    assert (options["password"], sentinels and sentinels.addresses) == (f"{SECRET},x", (("a", 1),))


def test_each_host_of_rabbitmq_has_the_user_the_virtual_host_and_the_options() -> None:
    hosts = rabbitmq_hosts.parse("amqp://ada:p%40ss@a:1,b,c:3/app?heartbeat=9")
    parameters = hosts.parameters("name", 2, 3)
    assert {(each.host, each.port) for each in parameters} == {("a", 1), ("b", 5672), ("c", 3)}
    assert {each.credentials.password for each in parameters} == {"p@ss"}
    assert {each.virtual_host for each in parameters} == {"app"}


@pytest.mark.parametrize(
    ("url", "queue_type"),
    [
        ("amqp://a/", None),
        ("amqp://a/?queue_type=quorum", "quorum"),
        ("amqp://a,b/", "quorum"),
        ("amqp://a,b/?queue_type=classic", "classic"),
    ],
)
def test_queues_are_quorum_queues_where_there_are_several_hosts(
    url: str, queue_type: str | None
) -> None:
    assert rabbitmq_hosts.parse(url).queue_type == queue_type


def test_messages_arrive_though_a_url_wants_them_decoded(broker_url: str) -> None:
    url = SecretStr(f"{broker_url}?decode_responses=true")
    broker = connect(url, namespace=f"test-{uuid4().hex}")
    received = declare_listener(broker, "mail")

    with working(broker):
        for number in (0, 1):  # the second wakes who waits
            broker.enqueue_many([message("mail", number=number)])
            assert take(received, 1) == [number]
    broker.close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+sentinel://a:1,b:2", "names no service of the Sentinels"),
        ("redis+sentinel://a:1,/main", "names no Sentinel"),
        ("redis+sentinel://a:nothing/main", "is no URL"),
        ("rediss://a/0?ssl_ca_cert=/ca.pem", "has a parameter that redis-py does not know"),
        ("redis+sentinel://a/main?sentinel_passwort=x", "has a parameter that redis-py does not"),
        ("redis://a/0?ssl_ca_certs=/ca.pem", "has a parameter that redis-py does not know"),
        ("rediss://a/0?ssl_cert_reqs=perhaps", "has a parameter that redis-py does not know"),
        ("amqp://a,b/?queue_type=stream", "has a queue_type other than classic and quorum"),
        ("amqp://a/?cacertfile=/ca.pem", "has files for TLS, and is no amqps URL"),
        ("amqp://a:1,b:nothing/", "is no URL"),
        ("amqp://a/?nothing=1", "is no URL"),
        ("redis://:12#3@a/0", "is no URL"),
        ("amqp://a/#x", "is no URL"),
        ("sentinel://a/", "must be a URL that starts with redis or"),
    ],
)
def test_a_wrong_url_is_refused_in_words_without_a_password(url: str, reason: str) -> None:
    scheme, _, rest = url.partition("://")
    with pytest.raises(ValidationError) as refused:
        Settings(
            _env_file=None,
            database_url="postgresql://localhost/x",
            broker_url=f"{scheme}://ada:{SECRET}@{rest}",
        )
    (error,) = refused.value.errors()
    assert reason in error["msg"]
    assert SECRET not in str(refused.value)
    assert SECRET not in error["msg"]
