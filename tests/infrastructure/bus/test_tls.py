"""Brokers by TLS, with a certificate authority of one's own and a certificate of the client's."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from pydantic import SecretStr

from kratos_sync.infrastructure.bus.broker import BrokerUnavailable, broker_status, connect
from tests.certificates import Certificates
from tests.infrastructure.bus.peeking import AnyBroker, is_back, wipe
from tests.infrastructure.bus.rabbitmq_server import ReturningRabbitmq
from tests.infrastructure.bus.sentinels import SERVICE, ConfiguredValkey, Sentinels
from tests.infrastructure.bus.test_refusing_brokers import documented_acl
from tests.infrastructure.bus.working import declare_listener, message, take, working
from tests.programs import missing
from tests.servers.installed import MISSING, InstalledRedis
from tests.waiting import until

CLUSTERS = Path(__file__).parents[3] / "docs" / "broker-clusters.md"


@contextmanager
def broker_at(url: str) -> Iterator[AnyBroker]:
    broker = connect(SecretStr(url), namespace=f"kratos-sync.test-{uuid4().hex}")
    yield broker
    broker.close()


def carries(broker: AnyBroker) -> None:
    """Do all that relay, worker and status do with a broker."""
    received = declare_listener(broker, "mail")
    until(lambda: is_back(broker))
    with working(broker, poll_milliseconds=200):
        broker.enqueue_many([message("mail", number=7)])
        assert take(received, 1) == [7]
        # Sentinels may take a server that was busy for one that is down, for a moment.
        until(lambda: broker_status(broker, ["mail"]).answers)


def refusal(url: str) -> str:
    """What is said of the broker, by whoever sends and by status."""
    with broker_at(url) as broker:
        said = refusal_of_ping(broker)
        assert broker_status(broker, ["mail"]).error == said
    return said


def refusal_of_ping(broker: AnyBroker) -> str:
    with pytest.raises(BrokerUnavailable) as refused:
        broker.ping()
    return str(refused.value)


def redis_tls(files: Certificates) -> list[str]:
    """Settings of a Redis that speaks nothing but TLS, with clients that it knows."""
    return [
        f"tls-ca-cert-file {files.ca}",
        f"tls-cert-file {files.server}",
        f"tls-key-file {files.server_key}",
        "tls-auth-clients yes",
        "tls-replication yes",
    ]


def by_tls(url: str, files: Certificates) -> str:
    """The URL with our files, and of the same server by TLS."""
    names = f"ssl_ca_certs={files.ca}&ssl_certfile={files.client}&ssl_keyfile={files.client_key}"
    return f"{url.replace('redis', 'rediss', 1)}?{names}"


def known_to(program: Path, rights: list[str]) -> list[str]:
    """The rights without the one for a command that Redis has from 7.2 on."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    is_old = re.findall(r"v=(\d+)\.(\d+)", said) < [("7", "2")]
    return [each for each in rights if not (is_old and each == "+client|setinfo")]


@pytest.fixture
def redis_program() -> Path:
    """The wheel's Valkey has no TLS."""
    if reason := MISSING["redis"]():
        missing(reason)
    return InstalledRedis(Path())._program()


def test_redis_by_tls_is_verified_and_verifies_us(
    certificates: Certificates, redis_program: Path, tmp_path: Path
) -> None:
    server = ConfiguredValkey(
        tmp_path / "redis", redis_tls(certificates), program=redis_program, tls=True
    )
    with server:
        url = f"redis://127.0.0.1:{server.port}/0"
        with broker_at(by_tls(url, certificates)) as broker:
            carries(broker)
        unknown = f"rediss://127.0.0.1:{server.port}/0"
        assert refusal(unknown).startswith("its certificate is refused: ")
        missing = f"{unknown}?ssl_ca_certs={tmp_path}/missing.pem"
        assert refusal(missing) == "a file of BROKER_URL is missing"
        # The server breaks off at some time after the handshake, and may say why.
        with broker_at(f"{unknown}?ssl_ca_certs={certificates.ca}") as broker:
            assert re.match(r"no TLS: |ConnectionError", refusal_of_ping(broker))


# redis-py may leave a socket to the garbage collector when connections break in several threads.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")
def test_the_documented_rights_are_enough_by_tls_and_sentinels_also_after_a_failover(
    certificates: Certificates, redis_program: Path, tmp_path: Path
) -> None:
    name, *rights = known_to(redis_program, documented_acl())
    administrator = "user admin on >admin ~* &* +@all"
    sentinels = Sentinels(
        tmp_path,
        down_after=1.0,
        program=redis_program,
        tls=True,
        settings=[*redis_tls(certificates), "user default off", administrator],
        of_servers=[
            " ".join(["user", name, *rights]),
            "user replica on >replica +psync +replconf +ping",
            "user sentinel on >sentinel allchannels +multi +slaveof +ping +exec +subscribe"
            " +config|rewrite +role +publish +info +client|setname +client|kill +script|kill",
            "masteruser replica",
            "masterauth replica",
        ],
        of_sentinels=[
            " ".join(["user", *known_to(redis_program, documented_acl(CLUSTERS))]),
            "sentinel sentinel-user admin",
            "sentinel sentinel-pass admin",
            f"sentinel auth-user {SERVICE} sentinel",
            f"sentinel auth-pass {SERVICE} sentinel",
        ],
        username="admin",
        password="admin",
        ssl=True,
        ssl_ca_certs=str(certificates.ca),
        ssl_certfile=str(certificates.client),
        ssl_keyfile=str(certificates.client_key),
    )
    with sentinels:
        url = by_tls(sentinels.url.replace("://", f"://{name}:password@"), certificates)
        url += f"&sentinel_username={name}&sentinel_password=password"
        with broker_at(url) as broker:
            carries(broker)
            sentinels.primary.kill()
            until(lambda: sentinels.is_primary(sentinels.replica))
            until(lambda: is_back(broker))
        with broker_at(url) as broker:
            carries(broker)
        wrong = url.replace("sentinel_password=password", "sentinel_password=another")
        assert "no Sentinel answers" in refusal(wrong)
        with (
            sentinels.sentinels[0].client(
                **{**sentinels.options, "username": name, "password": "password"}
            ) as client,
            pytest.raises(Exception, match="permissions"),
        ):
            client.sentinel_remove(SERVICE)


def test_rabbitmq_by_tls_is_verified_and_verifies_us(
    rabbitmq_server: ReturningRabbitmq, certificates: Certificates, tmp_path: Path
) -> None:
    url = f"amqps://guest:guest@127.0.0.1:{rabbitmq_server.tls_port}/"
    files = {"cacertfile": certificates.ca, "certfile": certificates.client}
    ours = urlencode({**files, "keyfile": certificates.client_key})
    with broker_at(f"{url}?{ours}") as broker:
        carries(broker)
        wipe(broker)
    assert refusal(url).startswith("its certificate is refused: ")
    assert refusal(f"{url}?cacertfile={tmp_path}/missing") == "a file of BROKER_URL is missing"
    with broker_at(f"{url}?cacertfile={certificates.ca}") as broker:
        assert refusal_of_ping(broker)
