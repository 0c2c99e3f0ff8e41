"""What the bus' tests look at: the ledger's rows, the broker's keys, who received what."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, Row, text

from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.domain.events import DomainEvent, KratosIdentityUpdated
from kratos_sync.infrastructure.bus.broker import connect
from tests.domain.people import webhook
from tests.infrastructure.bus.peeking import AnyBroker
from tests.infrastructure.bus.rabbitmq_server import ReturningRabbitmq, WiredRabbitmq
from tests.infrastructure.bus.servers import ReturningValkey, Wire

if TYPE_CHECKING:
    from structlog.typing import EventDict


class Ledger:
    """The ledger's tables, as a test fills and reads them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def record(self, *events: DomainEvent) -> None:
        from kratos_sync.infrastructure.ledger.recording import record_many

        with self.engine.begin() as connection:
            record_many(connection, [(event, Provenance("test")) for event in events])

    def execute(self, statement: str, **parameters: object) -> Sequence[Row[Any]]:
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), parameters)
            return result.all() if result.returns_rows else []

    def pending(self, consumer: str = "SyncKratosIdentity") -> list[UUID]:
        rows = self.execute(
            "SELECT event_id FROM kratos_sync.deliveries WHERE consumer = :consumer"
            " ORDER BY event_id",
            consumer=consumer,
        )
        return [row[0] for row in rows]

    def count(self, condition: str) -> int:
        statement = f"SELECT count(*) FROM kratos_sync.deliveries WHERE {condition}"
        return int(self.execute(statement)[0][0])

    def succeeded(self) -> list[UUID]:
        statement = "SELECT event_id FROM kratos_sync.attempts WHERE outcome = 'succeeded'"
        return [row[0] for row in self.execute(statement)]


def new_event(person: UUID | None = None) -> KratosIdentityUpdated:
    """Kratos said something of somebody."""
    from uuid_utils.compat import uuid7

    identity = webhook(id=str(person or uuid4()))
    return KratosIdentityUpdated(uuid7(), datetime.now(UTC), identity)


Server = ReturningValkey | ReturningRabbitmq | WiredRabbitmq
itself = pytest.mark.parametrize("server", ["valkey", "rabbitmq itself"], indirect=True)
on_both = pytest.mark.parametrize("broker", ["valkey", "rabbitmq"], indirect=True)
"""The same test on a real Valkey and on a real RabbitMQ."""
on_each = pytest.mark.parametrize("broker", ["valkey", "rabbitmq", "memory"], indirect=True)
"""On a broker in memory as well, which nobody else can write to."""


def names_logged(lines: "list[EventDict]") -> set[str]:
    return {line["event"] for line in lines}


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    """Whatever an application has added, only the service's own consumers are subscribed."""
    from kratos_sync.application.application import Subscriptions
    from kratos_sync.application.subscriptions import SUBSCRIPTIONS
    from tests.suites.ledgers import subscribe_only

    subscribe_only(engine, Subscriptions(SUBSCRIPTIONS))
    return Ledger(engine)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ReturningValkey]:
    """A server of the test's own, to do with as it likes."""
    with ReturningValkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture(params=["valkey", "rabbitmq"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of either kind, that may be sent away; the RabbitMQ only for who uses it here.

    Where the test asks for "rabbitmq itself" it dies and starts again, which takes its time.
    """
    if request.param == "valkey":
        yield request.getfixturevalue("valkey")
        return
    rabbitmq: ReturningRabbitmq = request.getfixturevalue("rabbitmq_server")
    if request.param == "rabbitmq itself":
        yield rabbitmq
        rabbitmq.be_there()
        return
    with Wire(rabbitmq.port) as wire:
        yield WiredRabbitmq(rabbitmq, wire)


@pytest.fixture
def its_broker(server: Server) -> Iterator[AnyBroker]:
    """A broker on the server that may be sent away, with queues of the test's own."""
    broker = connect(SecretStr(server.url), namespace=f"test-{uuid4().hex}")
    yield broker
    broker.close()
