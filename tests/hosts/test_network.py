"""Hosts, and what happens to packets between them."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.hosts.network import Host, Network
from tests.hosts.slow_links import Trouble
from tests.namespaces import MOUNTED, Namespace, remove_left, why_not
from tests.waiting import until

PORT = 2_000
DELAY = 0.05


@pytest.fixture(scope="module", autouse=True)
def _can_be_made() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(["one", "two"]) as network:
        yield network


class Peer:
    """A socket for datagrams on a host."""

    def __init__(self, host: Host) -> None:
        with host.there.entered():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host.address, PORT))
        self._socket.settimeout(0.1)
        self._host = host

    def close(self) -> None:
        self._socket.close()

    def send(self, to: "Peer", times: int = 1) -> None:
        for _ in range(times):
            self._socket.sendto(b"packet", (to._host.address, PORT))

    def receive(self) -> int:
        """How many come until none has come for a while."""
        number = 0
        try:
            while True:
                self._socket.recv(100)
                number += 1
        except TimeoutError:
            return number


@pytest.fixture
def one(network: Network) -> Iterator[Peer]:
    with closing(Peer(network.hosts["one"])) as peer:
        yield peer


@pytest.fixture
def two(network: Network) -> Iterator[Peer]:
    with closing(Peer(network.hosts["two"])) as peer:
        yield peer


def test_what_a_host_sends_to_another_may_be_lost_while_it_receives(
    network: Network, one: Peer, two: Peer
) -> None:
    network.drop("one", "two")
    one.send(two)
    two.send(one)
    assert (one.receive(), two.receive()) == (1, 0)
    network.carry("one", "two")
    one.send(two)
    assert two.receive() == 1


def test_a_host_that_is_cut_off_neither_sends_nor_receives(
    network: Network, one: Peer, two: Peer
) -> None:
    network.cut("two")
    one.send(two)
    two.send(one)
    assert (one.receive(), two.receive()) == (0, 0)
    network.mend("two")
    one.send(two)
    two.send(one)
    assert (one.receive(), two.receive()) == (1, 1)


def test_packets_are_as_late_as_was_asked_and_some_are_lost(
    network: Network, one: Peer, two: Peer
) -> None:
    network.trouble("one", Trouble(delay=DELAY), Trouble(loss=0.5))
    began = time.monotonic()
    one.send(two)
    assert until(two.receive) == 1
    assert time.monotonic() - began >= DELAY
    two.send(one, times=100)
    assert 0 < one.receive() < 100
    network.no_trouble("one")
    two.send(one, times=100)
    assert one.receive() == 100


def test_a_slow_link_carries_a_connection_with_every_byte(network: Network) -> None:
    network.trouble("one", Trouble(delay=0.002, loss=0.02), Trouble(delay=0.002))
    sent = os.urandom(1_000_000)
    with network.hosts["two"].there.entered():
        listening = socket.create_server((network.hosts["two"].address, PORT))

    def send() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(sent)

    sending = threading.Thread(target=send)
    sending.start()
    with listening, network.hosts["one"].there.entered():
        client = socket.create_connection((network.hosts["two"].address, PORT), timeout=30)
    with client:
        received = b"".join(iter(lambda: client.recv(65_536), b""))
    sending.join(30)
    assert received == sent


def test_a_host_that_disappeared_is_replaced_by_one_at_its_address(
    network: Network, two: Peer
) -> None:
    network.disconnect("one")
    network.connect("one")
    with closing(Peer(network.hosts["one"])) as replacement:
        two.send(replacement)
        assert replacement.receive() == 1
        replacement.send(two)
        assert two.receive() == 1


def test_two_networks_share_nothing(network: Network, one: Peer, two: Peer) -> None:
    with Network(["one"]) as another, closing(Peer(another.hosts["one"])) as elsewhere:
        two.send(one)
        assert (one.receive(), elsewhere.receive()) == (1, 0)


def test_nothing_is_left_of_a_run_that_was_killed() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = Namespace("left")
    left.name = left.name.replace(f"ks{os.getpid()}-", f"ks{ended.pid}-")
    left.add()
    running = subprocess.Popen(left.command(["sleep", "600"]))
    until(lambda: _is_inside(running.pid, left))
    remove_left()
    assert running.wait(10) < 0
    assert not (MOUNTED / left.name).exists()


def _is_inside(pid: int, namespace: Namespace) -> bool:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino == (MOUNTED / namespace.name).stat().st_ino
