"""The pytest plugin: `--kratos-sync-postgres` runs harnesses on a real PostgreSQL."""

from collections.abc import Iterator

import pytest

OPTION = "--kratos-sync-postgres"


def pytest_addoption(parser: pytest.Parser) -> None:
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
    from kratos_sync.testing.postgres import backends_on

    server: str = request.getfixturevalue("kratos_sync_postgres")
    with backends_on(server) as new_backend:
        monkeypatch.setattr(Harness, "backend", staticmethod(new_backend))
        yield
