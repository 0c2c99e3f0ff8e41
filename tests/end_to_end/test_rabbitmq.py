"""The service with RabbitMQ as its broker: the same calls end in the same rows."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from time import perf_counter

import pytest

from tests.databases import MigratedDatabase
from tests.end_to_end.service import Service
from tests.infrastructure.bus.rabbitmq_server import ReturningRabbitmq
from tests.recorded import two_hundred_lives
from tests.waiting import until

# Dated when a test first asks: for ten minutes a registration is one.
lives = cache(two_hundred_lives)
# Nothing waits for a lease to run out.
LEASE_SECONDS = 3_600


@pytest.fixture
def service(
    migrated_database: MigratedDatabase,
    rabbitmq_server: ReturningRabbitmq,
    tmp_path: Path,
) -> Iterator[Service]:
    with (
        migrated_database() as url,
        Service(tmp_path, url, rabbitmq_server, LEASE_SECONDS) as service,
    ):
        yield service


def test_webhooks_are_taken_and_consumed_also_while_rabbitmq_goes_away_and_returns(
    service: Service, rabbitmq_server: ReturningRabbitmq
) -> None:
    assert service.post(lives().calls[:100]) == [200] * 100
    service.settle()

    rabbitmq_server.go_away()
    assert service.post(lives().calls[100:200]) == [200] * 100
    until(lambda: "broker_unavailable" in service.log("relay"))
    until(lambda: "connection error" in service.log("worker"))
    assert service.count("deliveries") >= 100
    rabbitmq_server.come_back(wiped=True)
    back = perf_counter()
    service.settle()

    print(f"\nall was done {perf_counter() - back:.1f} s after RabbitMQ's return")
    assert service.people().keys() == {call.person for call in lives().calls[:200]}
    assert service.count("attempts", "outcome <> 'succeeded'") == 0
    for name in ("api", "relay", "worker"):
        assert "Traceback" not in service.log(name)
        assert "guest" not in service.log(name)
