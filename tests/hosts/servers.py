"""PostgreSQL and Valkey on hosts of their own."""

from contextlib import ExitStack
from pathlib import Path

from kratos_sync.infrastructure.embedded import EmbeddedValkey
from kratos_sync.infrastructure.embedded.postgres import PORT
from tests.hosts.network import Host
from tests.infrastructure.replicas import Primary


class HostPostgres(Primary):
    """A PostgreSQL on a host; ``url`` leads to it past the network."""

    def _prepare(self, undo: ExitStack) -> list[str]:
        command = super()._prepare(undo)
        self.url = self.url.replace(f"port={PORT}", f"port={self.port}")
        return command


class HostValkey(EmbeddedValkey):
    """A Valkey on a host; ``url`` leads to it from the others."""

    def __init__(self, directory: Path, host: Host) -> None:
        super().__init__(directory)
        self._host = host

    def _prepare(self, undo: ExitStack) -> list[str]:
        command = super()._prepare(undo)
        self.url = f"redis://{self._host.address}:{self._port}/0"
        return self._host.there.command([*command, "--bind", "*", "--protected-mode", "no"])

    def _is_ready(self) -> bool:
        with self._host.there.entered():
            return super()._is_ready()
