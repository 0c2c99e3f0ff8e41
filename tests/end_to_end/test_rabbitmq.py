"""The service with RabbitMQ as its broker: the same calls end in the same rows."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from tests.end_to_end.service import Service
from tests.infrastructure.bus.rabbitmq_server import ReturningRabbitmq
from tests.recorded import two_hundred_lives
from tests.waiting import until

# Dated when a test first asks: for ten minutes a registration is one.
lives = cache(two_hundred_lives)


@pytest.fixture
def service(
    postgres_url: str,
    migrated_template: str,
    rabbitmq_server: ReturningRabbitmq,
    tmp_path: Path,
) -> Iterator[Service]:
    name = f"service_{uuid4().hex}"
    url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(postgres_url, autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}".encode())
        try:
            with Service(tmp_path, url, rabbitmq_server) as service:
                yield service
        finally:
            administrator.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


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
    service.settle(seconds=10)

    print(f"\nall was done {perf_counter() - back:.1f} s after RabbitMQ's return")
    assert service.people().keys() == {call.person for call in lives().calls[:200]}
    assert service.count("attempts", "outcome <> 'succeeded'") == 0
    for name in ("api", "relay", "worker"):
        assert "Traceback" not in service.log(name)
        assert "guest" not in service.log(name)
