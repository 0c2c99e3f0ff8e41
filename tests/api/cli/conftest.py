"""The settings that commands find when a test runs them."""

from pathlib import Path

import pytest


@pytest.fixture
def settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str, broker_url: str
) -> None:
    """The test's database and broker, from the environment alone: there is no .env."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BROKER_URL", broker_url)
