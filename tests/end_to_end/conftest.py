"""The service that these tests call: started once, begun anew for each of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.databases import MigratedDatabase
    from tests.end_to_end.running_api import RunningApi
    from tests.end_to_end.service import Service


@pytest.fixture(scope="package")
def running_service(
    migrated_database: "MigratedDatabase",
    servers: frozenset[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> "Iterator[Service]":
    from tests.end_to_end.service import Service
    from tests.infrastructure.bus.servers import ReturningRedis, ReturningValkey

    folder: Path = tmp_path_factory.mktemp("service")
    kind = ReturningRedis if "redis" in servers else ReturningValkey
    with (
        migrated_database() as url,
        kind(folder / "valkey") as valkey,
        Service(folder, url, valkey) as service,
    ):
        yield service


@pytest.fixture
def service(running_service: "Service") -> "Iterator[Service]":
    yield running_service
    running_service.forget()


@pytest.fixture(scope="module")
def api(
    migrated_database: "MigratedDatabase", tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[RunningApi]":
    from tests.end_to_end.running_api import RunningApi

    with (
        migrated_database() as url,
        RunningApi.started(tmp_path_factory.mktemp("api"), url) as running,
    ):
        yield running
