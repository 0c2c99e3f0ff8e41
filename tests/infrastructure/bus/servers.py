"""Servers that go away, and wires that break."""

import os
import signal
import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import redis

from kratos_sync.infrastructure.embedded import EmbeddedValkey
from tests.ports import free_port
from tests.servers.installed import InstalledRedis


class ReturningValkey(EmbeddedValkey):
    """A Valkey that comes back at the same address, with what it held."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._first_port = 0

    def _prepare(self, undo: ExitStack) -> list[str]:
        command = super()._prepare(undo)
        chosen = str(self._port)
        self._first_port = self._port = self._first_port or self._port
        self.url = f"redis://127.0.0.1:{self._port}/0"
        return [str(self._port) if part == chosen else part for part in command]

    def go_away(self) -> None:
        self.__exit__(None, None, None)

    def come_back(self, *, wiped: bool = False) -> None:
        self.__enter__()
        if wiped:
            with redis.Redis.from_url(self.url) as client:
                client.flushall()

    def halt(self) -> None:
        """Say nothing more, and let everybody connect."""
        os.kill(self._server_pid(), signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._server_pid(), signal.SIGCONT)

    def _server_pid(self) -> int:
        assert self.pid is not None
        return self.pid


class ReturningRedis(ReturningValkey):
    """The same for the Redis that is installed here."""

    name = "Redis"
    _program = InstalledRedis._program


class Wire:
    """A wire to a server on this machine; it can be cut, also instead of carrying an answer."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.port = free_port()
        self._lose_answer_to: bytes | None = None
        self._ends: set[socket.socket] = set()
        self.lost = threading.Event()

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def mend(self) -> None:
        """Carry connections, at the same port as before."""
        listening = socket.create_server(("127.0.0.1", self.port))
        self._ends.add(listening)
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def cut(self) -> None:
        """Cut all connections, and take no more."""
        while self._ends:
            with self._ends.pop() as end, suppress(OSError):
                # Closing alone would leave accept() and recv() waiting.
                end.shutdown(socket.SHUT_RDWR)

    def lose_answer_to(self, command: bytes) -> None:
        """Carry the next such command to the server, and cut the wire when it has answered."""
        self._lose_answer_to = command

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                self._ends |= {client, server}
                threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        losing = threading.Event()
        back = threading.Thread(target=self._carry_back, args=(server, client, losing), daemon=True)
        back.start()
        with client, server, suppress(OSError):
            while data := client.recv(65536):
                if self._lose_answer_to is not None and self._lose_answer_to in data:
                    self._lose_answer_to = None
                    losing.set()
                server.sendall(data)
        self._ends -= {client, server}

    def _carry_back(
        self, server: socket.socket, client: socket.socket, losing: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if losing.is_set():
                    self.lost.set()
                    break
                client.sendall(data)
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
