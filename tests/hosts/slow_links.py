"""Links that delay and lose packets, on any kernel: netem is a module that many have not.

A host's port is taken off the bridge, and a thread carries its frames between the port and one end
of a cable whose other end is on the bridge. The kernel gives and takes them with the header that
says what it has still to do (checksums, segments).
"""

import random
import selectors
import socket
import subprocess
import threading
import time
from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from typing import Final, NamedTuple, Self

from tests.namespaces import Namespace

SOL_PACKET, VNET_HEADER, IGNORE_OUTGOING = 263, 15, 23
RECEIVE_BUFFER, SEND_BUFFER = 33, 32
"""The options of Linux that exceed what others may have."""
ALL_PROTOCOLS: Final = 3
LARGEST_FRAME: Final = 70_000
BUFFER_BYTES: Final = 16 * 1024 * 1024
FRAMES_AT_ONCE: Final = 64
LOOK_SECONDS: Final = 0.2


class Trouble(NamedTuple):
    """What happens to packets in one direction."""

    delay: float = 0.0
    loss: float = 0.0


NO_TROUBLE: Final = Trouble()


class Direction(NamedTuple):
    """Frames come from one socket, and go to another."""

    source: socket.socket
    target: socket.socket
    trouble: Trouble


class SlowLinks:
    """Carries the frames of troubled ports of a switch, in a thread."""

    def __init__(self, switch: Namespace) -> None:
        self._switch = switch
        self._by_port: dict[str, tuple[socket.socket, socket.socket]] = {}
        self._directions = selectors.DefaultSelector()
        self._changing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow links", daemon=True)
        self._numbers = count()
        self._due: list[tuple[float, int, socket.socket, bytes]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=10)
        for port in list(self._by_port):
            self.no_trouble(port)
        self._directions.close()

    def trouble(self, port: str, sent: Trouble, received: Trouble) -> None:
        """Carry a port's frames by hand: what its host sends, and what it receives."""
        self.no_trouble(port)
        inner, outer = f"{port}.i", f"{port}.o"
        self._switch.ip_all(
            [
                f"link add {inner} type veth peer name {outer}",
                f"link set {inner} up",
                f"link set {port} nomaster",
                f"link set {outer} master switch up",
            ]
        )
        self._switch.await_port(outer)
        with self._switch.entered():
            at_host, at_bridge = _socket(port), _socket(inner)
        with self._changing:
            self._by_port[port] = at_host, at_bridge
            reading = selectors.EVENT_READ
            self._directions.register(at_host, reading, Direction(at_host, at_bridge, sent))
            self._directions.register(at_bridge, reading, Direction(at_bridge, at_host, received))

    def no_trouble(self, port: str) -> None:
        """Put the port on the bridge again."""
        with self._changing:
            ends = self._by_port.pop(port, ())
            for end in ends:
                self._directions.unregister(end)
                end.close()
        if ends:
            with suppress(subprocess.CalledProcessError):  # its host has disappeared
                self._switch.ip("link", "del", f"{port}.i")
                self._switch.ip("link", "set", port, "master", "switch")

    def _run(self) -> None:
        while not self._ended.is_set():
            wait = self._due[0][0] - time.monotonic() if self._due else LOOK_SECONDS
            ready = (
                self._directions.select(max(min(wait, LOOK_SECONDS), 0)) if self._by_port else []
            )
            if not self._by_port:
                self._due.clear()
                self._ended.wait(LOOK_SECONDS / 10)
            with self._changing:
                for key, _ in ready:
                    self._receive(key.data)
                self._send()

    def _receive(self, direction: Direction) -> None:
        delay, loss = direction.trouble
        with suppress(OSError):  # there are no more, or the link was closed meanwhile
            for _ in range(FRAMES_AT_ONCE):
                frame = direction.source.recv(LARGEST_FRAME)
                if not loss or random.random() >= loss:
                    due = time.monotonic() + delay
                    heappush(self._due, (due, next(self._numbers), direction.target, frame))

    def _send(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            *_, target, frame = heappop(self._due)
            with suppress(OSError):
                target.send(frame)


def _socket(interface: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    made.setsockopt(SOL_PACKET, VNET_HEADER, 1)
    made.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
    for option in (RECEIVE_BUFFER, SEND_BUFFER):
        made.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    made.bind((interface, ALL_PROTOCOLS))
    made.setblocking(False)
    return made
