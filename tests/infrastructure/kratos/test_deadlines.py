"""Deadlines for whole calls."""

import socket
import time
from collections.abc import Iterator

import httpcore
import pytest

from kratos_sync.infrastructure.kratos.http_client import PunctualBackend, within


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def connected(server: socket.socket) -> httpcore.NetworkStream:
    return PunctualBackend().connect_tcp("127.0.0.1", server.getsockname()[1], 10)


def test_a_read_may_not_outlast_the_call(silent: socket.socket) -> None:
    stream = connected(silent)
    began = time.monotonic()
    with within(0.1), pytest.raises(httpcore.ReadTimeout):
        stream.read(1, timeout=60)
    stream.close()

    assert 0.1 <= time.monotonic() - began < 30


def test_a_write_may_not_outlast_the_call(silent: socket.socket) -> None:
    stream = connected(silent)
    began = time.monotonic()
    with within(0.1), pytest.raises(httpcore.TimeoutException):
        stream.write(b"a" * 100_000_000, timeout=60)
    stream.close()

    assert time.monotonic() - began < 30


def test_nothing_is_begun_when_the_time_is_up(silent: socket.socket) -> None:
    stream = connected(silent)
    with within(0):
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
    with within(60), pytest.raises(httpcore.ReadTimeout):
        stream.read(1, timeout=0.05)
    stream.close()

    assert time.monotonic() - began < 30


def test_one_call_has_no_bearing_on_the_next(silent: socket.socket) -> None:
    stream = connected(silent)
    with within(0), pytest.raises(httpcore.TimeoutException):
        stream.read(1)
    stream.write(b"a", timeout=10)
    stream.close()
