"""Calls of one server from many threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr

from kratos_sync.application.ports.kratos import KratosUnavailable
from kratos_sync.infrastructure.kratos.http_client import CONNECTIONS, Endpoint
from tests.api.http.sessions.kratos_server import running_kratos


def problem_of(endpoint: Endpoint) -> str:
    with pytest.raises(KratosUnavailable) as raised:
        endpoint.call("GET", "/", 1_000, seconds=0.2)
    return raised.value.problem


def test_who_gives_up_waiting_for_a_slow_server_takes_no_connection_along() -> None:
    with running_kratos() as kratos:
        endpoint = Endpoint(SecretStr(kratos.url))

        def give_up(_: int) -> set[str]:
            return {problem_of(endpoint) for _ in range(5)}

        kratos.go.clear()
        population = 4 * CONNECTIONS
        with ThreadPoolExecutor(population) as threads:
            problems = set[str]().union(*threads.map(give_up, range(population)))
        kratos.go.set()

        assert problems == {"no connection was free", "timed out"}
        assert endpoint.call("GET", "/", 1_000, seconds=10).status == 401
        endpoint.close()
