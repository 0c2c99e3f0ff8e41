"""Ports for servers that tests start."""

import socket
from contextlib import suppress
from random import randrange


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens, and that stay free while a server is away.

    Above them are those that the kernel gives to whoever connects somewhere.
    """
    found: set[int] = set()
    while len(found) < count:
        port = randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.add(port)
    return list(found)


def free_port() -> int:
    """One of them."""
    (port,) = free_ports(1)
    return port


def free_pair() -> tuple[int, int]:
    """One of them, and the one after it that is free too."""
    while True:
        port = free_port()
        with suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
            return port, port + 1
