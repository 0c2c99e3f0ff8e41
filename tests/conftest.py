"""The real servers that integration tests use: one of each a run, a database and a queue a test.

They come from wheels, or from where TEST_DATABASE_URL and TEST_BROKER_URL say; RabbitMQ is started
where it is installed, or is where TEST_AMQP_URL says. Nothing here is
imported before a test asks for it: the domain's tests need only pytest and hypothesis.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from tests.run_folder import run_folder
from tests.scheduling import RABBITMQ, by_group, place_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from kratos_sync.infrastructure.container import Container
    from tests.certificates import Certificates
    from tests.databases import MigratedDatabase
    from tests.infrastructure.bus.peeking import AnyBroker
    from tests.infrastructure.bus.rabbitmq_server import ReturningRabbitmq


OTHER_SERVERS: Final = ("postgresql", "pgbouncer", "redis", "clusters")
"""Servers beside those of the wheels, on which the tests can be run.

With "clusters" those of brokers are broken in every way, which takes some minutes.
"""

# A busy machine is slow, and that is no failure.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let all temporary folders of this run lie in one of its own, unless ``--basetemp`` is given.

    xdist's workers are given folders in that one.
    """
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        folder = run_folder()
        config.option.basetemp = folder.__enter__() / "tmp"
        config.add_cleanup(lambda: folder.__exit__(None, None, None))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes run the tests, begin with those that take longest."""
    for item in items:
        if {"amqp_url", "rabbitmq_server"} & set(getattr(item, "fixturenames", ())):
            assert RABBITMQ in item.nodeid, f"{item.nodeid} does not say that it uses RabbitMQ"
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: place_of(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file's tests together, and all those with RabbitMQ."""
    return by_group(config, log) if config.option.dist == "loadfile" else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--server",
        action="append",
        default=[],
        choices=OTHER_SERVERS,
        help="Run the tests on this server, which is installed here; may be given several times.",
    )


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> frozenset[str]:
    """Those of OTHER_SERVERS that the run is for; skips where one of them is not installed."""
    from tests.programs import missing
    from tests.servers.installed import MISSING

    asked = frozenset(request.config.option.server)
    for server in sorted(asked):
        if reason := MISSING[server]():
            missing(reason)
    return asked


@pytest.fixture(scope="session")
def postgres_url(
    tmp_path_factory: pytest.TempPathFactory, servers: frozenset[str]
) -> Iterator[str]:
    """A server's maintenance database."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    from kratos_sync.infrastructure.embedded import EmbeddedPostgres
    from tests.servers.installed import InstalledPostgres

    kind = InstalledPostgres if "postgresql" in servers else EmbeddedPostgres
    with kind(tmp_path_factory.mktemp("postgres")) as server:
        yield server.url


@pytest.fixture(scope="session")
def broker_url(tmp_path_factory: pytest.TempPathFactory, servers: frozenset[str]) -> Iterator[str]:
    """A Redis-compatible server."""
    if given := os.environ.get("TEST_BROKER_URL"):
        yield given
        return
    from kratos_sync.infrastructure.embedded import EmbeddedValkey
    from tests.servers.installed import InstalledRedis

    kind = InstalledRedis if "redis" in servers else EmbeddedValkey
    with kind(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> "Certificates":
    """Certificates of servers here, and of who uses them."""
    from tests.certificates import Certificates

    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def rabbitmq_server(
    tmp_path_factory: pytest.TempPathFactory, certificates: "Certificates"
) -> "Iterator[ReturningRabbitmq]":
    """A RabbitMQ that tests may do with as they like, if they leave it running."""
    from tests.infrastructure.bus.rabbitmq_server import ReturningRabbitmq, require_rabbitmq

    require_rabbitmq()
    folder = tmp_path_factory.mktemp("rabbitmq") / "node"
    with ReturningRabbitmq(folder, certificates) as server:
        yield server


@pytest.fixture(scope="session")
def amqp_url(request: pytest.FixtureRequest) -> str:
    """A RabbitMQ: TEST_AMQP_URL says where, or it is installed here."""
    given = os.environ.get("TEST_AMQP_URL")
    return given or str(request.getfixturevalue("rabbitmq_server").url)


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> Iterator[str]:
    """The name of a migrated database that others are copied from."""
    from sqlalchemy import make_url

    from tests.databases import database
    from tests.environment import migrate_all

    with database(postgres_url) as url:
        migrate_all(url)
        yield str(make_url(url).database)


@pytest.fixture(scope="session")
def migrated_database(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_url: str,
    migrated_template: str,
    servers: frozenset[str],
) -> "Iterator[MigratedDatabase]":
    """Databases that begin as the template is."""
    from tests.databases import database
    from tests.environment import DIRECT_URLS

    direct = partial(database, postgres_url, migrated_template)
    if "pgbouncer" not in servers:
        yield direct
        return
    from tests.servers.pgbouncer import Pgbouncer

    with Pgbouncer(tmp_path_factory.mktemp("pgbouncer"), postgres_url) as pooler:

        @contextmanager
        def pooled() -> Iterator[str]:
            with direct() as url:
                through = pooler.leading_to(url)
                DIRECT_URLS[through] = url
                yield through

        yield pooled


@pytest.fixture
def database_url(migrated_database: "MigratedDatabase") -> Iterator[str]:
    """A fresh, migrated database of the test's own."""
    with migrated_database() as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A fresh database that nobody has migrated."""
    from tests.databases import database

    with database(postgres_url) as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> "Iterator[Engine]":
    """Connections to the test's database."""
    from pydantic import SecretStr

    from kratos_sync.infrastructure.postgres.engine import connect

    engine = connect(SecretStr(database_url), pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def direct_engine(database_url: str) -> "Iterator[Engine]":
    """Connections to the test's database that share their session with nobody."""
    from pydantic import SecretStr

    from kratos_sync.infrastructure.postgres.engine import connect
    from tests.environment import direct

    engine = connect(SecretStr(direct(database_url)), pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> "Iterator[AnyBroker]":
    """A broker with queues of the test's own: on Valkey, or of the kind the test asks for."""
    from pydantic import SecretStr

    from kratos_sync.infrastructure.bus.broker import connect
    from tests.infrastructure.bus.peeking import wipe

    kind = getattr(request, "param", "valkey")
    urls = {"valkey": "broker_url", "rabbitmq": "amqp_url"}
    url = request.getfixturevalue(urls[kind]) if kind in urls else f"{kind}://"
    broker = connect(SecretStr(url), namespace=f"test-{uuid4().hex}")
    yield broker
    if kind == "rabbitmq":
        wipe(broker)
    broker.close()


@pytest.fixture
def container(database_url: str, broker_url: str, broker: "AnyBroker") -> "Iterator[Container]":
    """The whole service, wired to the test's database and queues."""
    from kratos_sync.infrastructure.container import Container
    from kratos_sync.infrastructure.settings import Settings

    container = Container()
    container.settings.override(
        Settings(_env_file=None, database_url=database_url, broker_url=broker_url, lease_seconds=60)
    )
    container.broker.override(broker)
    yield container
    container.wake_relay().stop()
    container.engine().dispose()
    container.spare_engine().dispose()
