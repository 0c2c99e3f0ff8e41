"""A load balancer's stand-in, in front of several apis."""

import asyncio
from asyncio import StreamReader, StreamWriter
from itertools import count
from typing import Final, Self

import httpx

from tests.faults.wires import Loop, Wire
from tests.waiting import until

READY: Final = "http://127.0.0.1:{port}/health/ready"


class Balancer:
    """Leads each connection to the next api in rotation, and tries no other if that refuses."""

    def __init__(self, loop: Loop) -> None:
        self._ports: tuple[int, ...] = ()
        self._connections: dict[int, set[StreamWriter]] = {}
        self._turn = count()
        self.refused = 0
        """Connections that an api in rotation did not take."""
        self._wire = Wire(loop, self._connect)
        self.port = self._wire.port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()

    @staticmethod
    def is_ready(port: int) -> bool:
        """What a balancer asks before it adds one."""
        try:
            with httpx.Client(trust_env=False, timeout=5) as client:
                return client.get(READY.format(port=port)).status_code == 200
        except httpx.TransportError:
            return False

    def add(self, port: int) -> None:
        """Lead connections there, too."""
        self._connections[port] = set()
        self._ports += (port,)

    def remove(self, port: int) -> None:
        """Lead no more connections there, and return when those that there were have ended."""
        self._ports = tuple(each for each in self._ports if each != port)
        until(lambda: not any(not each.transport.is_closing() for each in self._connections[port]))

    async def _connect(self) -> tuple[StreamReader, StreamWriter]:
        ports = self._ports
        port = ports[next(self._turn) % len(ports)]
        try:
            reading, writing = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            self.refused += 1
            raise
        connections = self._connections[port]
        connections -= {each for each in connections if each.transport.is_closing()}
        connections.add(writing)
        return reading, writing
