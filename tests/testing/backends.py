"""The harness on either backend."""

from collections.abc import Iterator

import pytest

from kratos_sync.testing import Harness


@pytest.fixture(params=["in memory", "PostgreSQL"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever harness a test makes runs in memory, and again on a real PostgreSQL."""
    if request.param == "in memory":
        yield
        return
    from kratos_sync.testing.postgres import backends_on

    server = request.getfixturevalue("postgres_url")
    with backends_on(server) as new_backend:
        monkeypatch.setattr(Harness, "backend", staticmethod(new_backend))
        yield
