"""What commands find when a test runs them: settings, Kratos, and what happens meanwhile."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kratos_sync.api.cli import watching
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.kratos.admin_stand_in import AdminStandIn


@pytest.fixture
def settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str, broker_url: str
) -> None:
    """The test's database and broker, from the environment alone: there is no .env."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("BROKER_URL", broker_url)


@pytest.fixture
def kratos(monkeypatch: pytest.MonkeyPatch) -> Iterator[AdminStandIn]:
    """Kratos' Admin API, which commands find."""
    with AdminStandIn(InMemoryDocuments()) as stand_in:
        monkeypatch.setenv("KRATOS_ADMIN_URL", stand_in.url)
        yield stand_in


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let things happen between the looks of a command; then it is ended by Ctrl-C."""

    def happen(*happenings: Callable[[], object]) -> None:
        left = iter(happenings)

        def pause(_: float) -> None:
            if (happening := next(left, None)) is None:
                raise KeyboardInterrupt
            happening()

        monkeypatch.setattr(watching, "sleep", pause)

    return happen
