"""The service that these tests call: started once, begun anew for each of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.running_api import RunningApi
    from tests.end_to_end.service import Service


@pytest.fixture(scope="package")
def running_service(
    postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Service]":
    import psycopg
    from sqlalchemy import make_url

    from tests.end_to_end.service import Service
    from tests.infrastructure.bus.servers import ReturningValkey

    folder: Path = tmp_path_factory.mktemp("service")
    name = f"service_{uuid4().hex}"
    url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(postgres_url, autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}".encode())
        try:
            with (
                ReturningValkey(folder / "valkey") as valkey,
                Service(folder, url, valkey) as service,
            ):
                yield service
        finally:
            administrator.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def service(running_service: "Service") -> "Iterator[Service]":
    yield running_service
    running_service.forget()


@pytest.fixture(scope="module")
def api(
    postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[RunningApi]":
    import psycopg
    from sqlalchemy import make_url

    from tests.end_to_end.running_api import RunningApi

    name = f"api_{uuid4().hex}"
    url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    with psycopg.connect(postgres_url, autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}".encode())
        try:
            with RunningApi.started(tmp_path_factory.mktemp("api"), url) as running:
                yield running
        finally:
            administrator.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
