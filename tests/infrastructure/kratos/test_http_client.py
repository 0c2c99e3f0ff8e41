"""Deadlines of whole calls, and calls from many threads."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpcore
import pytest
from pydantic import SecretStr

from kratos_sync.application.ports.kratos import KratosUnavailable
from kratos_sync.infrastructure.kratos.http_client import (
    CONNECTIONS,
    DeadlineBackend,
    Endpoint,
    deadline,
)
from tests.api.http.sessions.kratos_server import running_kratos
from tests.waiting import DEADLINE_SECONDS


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def connected(server: socket.socket) -> httpcore.NetworkStream:
    return DeadlineBackend().connect_tcp("127.0.0.1", server.getsockname()[1], DEADLINE_SECONDS)


def test_a_read_may_not_outlast_the_call(silent: socket.socket) -> None:
    stream = connected(silent)
    began = time.monotonic()
    with deadline(0.1), pytest.raises(httpcore.ReadTimeout):
        stream.read(1, timeout=2 * DEADLINE_SECONDS)
    stream.close()

    assert 0.1 <= time.monotonic() - began < DEADLINE_SECONDS


def test_a_write_may_not_outlast_the_call(silent: socket.socket) -> None:
    stream = connected(silent)
    began = time.monotonic()
    with deadline(0.1), pytest.raises(httpcore.TimeoutException):
        stream.write(b"a" * 100_000_000, timeout=2 * DEADLINE_SECONDS)
    stream.close()

    assert time.monotonic() - began < DEADLINE_SECONDS


def test_nothing_is_begun_when_the_time_is_up(silent: socket.socket) -> None:
    stream = connected(silent)
    with deadline(0):
        with pytest.raises(httpcore.TimeoutException):
            stream.read(1)
        with pytest.raises(httpcore.TimeoutException):
            stream.write(b"a")
        with pytest.raises(httpcore.TimeoutException):
            connected(silent)
    stream.close()


def test_a_shorter_timeout_of_its_own_is_kept(silent: socket.socket) -> None:
    stream = connected(silent)
    began = time.monotonic()
    with deadline(2 * DEADLINE_SECONDS), pytest.raises(httpcore.ReadTimeout):
        stream.read(1, timeout=0.05)
    stream.close()

    assert time.monotonic() - began < DEADLINE_SECONDS


def test_one_call_has_no_bearing_on_the_next(silent: socket.socket) -> None:
    stream = connected(silent)
    with deadline(0), pytest.raises(httpcore.TimeoutException):
        stream.read(1)
    stream.write(b"a", timeout=DEADLINE_SECONDS)
    stream.close()


def problem_of(endpoint: Endpoint) -> str:
    with pytest.raises(KratosUnavailable) as raised:
        endpoint.call("GET", "/", 1_000, seconds=0.2)
    return raised.value.problem


def test_giving_up_on_a_slow_server_loses_no_connection() -> None:
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
        assert endpoint.call("GET", "/", 1_000, seconds=DEADLINE_SECONDS).status == 401
        endpoint.close()
