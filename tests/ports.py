"""Ports for servers that tests start."""

import socket
from collections import deque
from contextlib import suppress
from random import randrange
from typing import Final

_RESERVED: Final[deque[socket.socket]] = deque(maxlen=200)
"""The UDP ports of the same numbers: other processes that look for a port here pass them over."""


def free_ports(count: int) -> list[int]:
    """Ports on which nobody listens, and that stay free while a server is away.

    Above them are those that the kernel gives to whoever connects somewhere.
    """
    found: set[int] = set()
    while len(found) < count:
        port = randrange(20_000, 32_000)
        if is_free(port):
            found.add(port)
    return list(found)


def is_free(port: int) -> bool:
    """Whether nobody listens on a port, or is about to; it is reserved for this process then."""
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        reserved = socket.socket(type=socket.SOCK_DGRAM)
        try:
            reserved.bind(("127.0.0.1", port))
        except OSError:
            reserved.close()
            return False
        _RESERVED.append(reserved)
        return True
    return False


def free_port() -> int:
    """One of them."""
    (port,) = free_ports(1)
    return port


def free_pair() -> tuple[int, int]:
    """One of them, and the one after it that is free too."""
    while True:
        port = free_port()
        if is_free(port + 1):
            return port, port + 1
