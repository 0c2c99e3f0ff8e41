"""The pytest plugin: `--kratos-sync-postgres` runs harnesses on a real PostgreSQL."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest

OPTION = "--kratos-sync-postgres"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("kratos-sync").addoption(
        OPTION,
        action="store_true",
        help="run kratos_sync.testing.Harness on a real PostgreSQL, each in a database of its own",
    )


@pytest.fixture(scope="session")
def kratos_sync_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL from the wheels of the extra `embedded`."""
    from kratos_sync.infrastructure.embedded import EmbeddedPostgres

    with EmbeddedPostgres(tmp_path_factory.mktemp("kratos_sync")) as server:
        yield server.url


@pytest.fixture(autouse=True)
def _kratos_sync_backend(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    if not request.config.getoption(OPTION):
        yield
        return
    from kratos_sync.testing.harness import Harness
    from kratos_sync.testing.postgres import PostgresBackend, new_database

    server: str = request.getfixturevalue("kratos_sync_postgres")
    with ExitStack() as undo:

        def backend(subscriptions: Any, application: Any, adapters: Mapping[Any, object]) -> Any:
            url = undo.enter_context(new_database(server, f"test_{uuid4().hex}"))
            made = PostgresBackend(url, subscriptions, application, adapters)
            undo.callback(made.close)
            return made

        monkeypatch.setattr(Harness, "backend", staticmethod(backend))
        yield
