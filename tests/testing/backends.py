"""The harness on either backend."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest

from kratos_sync.testing import Harness


@pytest.fixture(params=["in memory", "PostgreSQL"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever harness a test makes runs in memory, and again on a real PostgreSQL."""
    if request.param == "in memory":
        yield
        return
    from kratos_sync.testing.postgres import PostgresBackend, new_database

    server = request.getfixturevalue("postgres_url")
    with ExitStack() as undo:

        def on_postgres(*arguments: Any) -> PostgresBackend:
            url = undo.enter_context(new_database(server, f"test_{uuid4().hex}"))
            made = PostgresBackend(url, *arguments)
            undo.callback(made.close)
            return made

        monkeypatch.setattr(Harness, "backend", staticmethod(on_postgres))
        yield
