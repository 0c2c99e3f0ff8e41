"""Wires: what they carry, and how they break."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.faults.wires import COMMIT, Loop, Wire, tcp_server
from tests.waiting import until


class EchoServer:
    """Sends back what it receives, and keeps it."""

    def __init__(self) -> None:
        self.received = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._echo, args=(client,), daemon=True).start()

    def _echo(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while data := client.recv(1024):
                self.received += data
                client.sendall(data)


@pytest.fixture
def server() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


@pytest.fixture
def wire(server: EchoServer) -> Iterator[Wire]:
    with Loop() as loop:
        wire = Wire(loop, tcp_server(server.port))
        yield wire
        wire.cut()
        wire.close()


@pytest.fixture
def client(wire: Wire) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", wire.port), timeout=10) as client:
        yield client


def ask(client: socket.socket, request: bytes) -> bytes:
    """Give the answer; nothing if the connection was cut."""
    client.sendall(request)
    try:
        return client.recv(1024)
    except ConnectionError:
        return b""


def test_it_carries_what_is_said(client: socket.socket) -> None:
    assert ask(client, b"hello") == b"hello"


def test_a_wire_that_is_cut_ends_every_connection(wire: Wire, client: socket.socket) -> None:
    ask(client, b"hello")
    assert wire.cut() == 1
    assert ask(client, b"hello?") == b""


def test_a_lost_request_never_reaches_the_server(
    wire: Wire, client: socket.socket, server: EchoServer
) -> None:
    wire.lose("request", re.compile(b"commit"), times=1)
    assert ask(client, b"begin") == b"begin"
    assert ask(client, b"commit") == b""
    assert (server.received, wire.lost) == (b"begin", 1)


def test_a_lost_answer_is_to_a_request_that_was_received(
    wire: Wire, client: socket.socket, server: EchoServer
) -> None:
    wire.lose("answer", re.compile(b"commit"), times=1)
    assert ask(client, b"begin") == b"begin"
    assert ask(client, b"commit") == b""
    assert (server.received, wire.lost) == (b"begincommit", 1)


def test_a_silent_wire_says_later_what_it_kept(wire: Wire, client: socket.socket) -> None:
    ask(client, b"hello")
    wire.stall()
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        ask(client, b"are you there?")
    client.settimeout(10)
    wire.flow()
    assert client.recv(1024) == b"are you there?"


def test_a_slow_wire_loses_nothing(wire: Wire, client: socket.socket, server: EchoServer) -> None:
    wire.drip(0.01)
    client.sendall(b"x" * 1000)
    until(lambda: len(server.received) >= 1000)
    assert server.received == b"x" * 1000


@pytest.mark.parametrize(
    ("sent", "is_one"),
    [
        (b"Q\x00\x00\x00\x0bCOMMIT\x00", True),
        (b"B\x00\x00\x01\x07\x00record_group\x00\x00\x0a", True),
        (b"P\x00\x00\x01\x07record_group\x00INSERT", False),
        (b"Q\x00\x00\x00\x0bROLLBACK\x00", False),
    ],
)
def test_a_commit_is_known_by_what_is_sent(sent: bytes, is_one: bool) -> None:
    assert bool(COMMIT.search(sent)) is is_one
