"""A Kratos for each test."""

from collections.abc import Iterator

import pytest

from tests.api.http.sessions.kratos_server import KratosServer, running_kratos


@pytest.fixture
def kratos() -> Iterator[KratosServer]:
    with running_kratos() as server:
        yield server
