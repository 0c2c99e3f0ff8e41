"""What commands find when a test runs them: settings, and the consumers of this repository."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.suites.occurrences import only_ours


@pytest.fixture
def settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str, broker_url: str
) -> None:
    """The test's database and broker, from the environment alone: there is no .env."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BROKER_URL", broker_url)


@pytest.fixture
def our_consumers() -> Iterator[None]:
    """No consumer besides those of this repository."""
    with only_ours():
        yield
