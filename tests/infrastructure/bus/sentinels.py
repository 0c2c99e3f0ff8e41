"""A primary with a replica, and three Sentinels that promote it."""

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Self

import redis

from kratos_sync.infrastructure.embedded import EmbeddedValkey
from tests.infrastructure.replicas import LOOPBACK, Network
from tests.ports import free_port
from tests.waiting import until

SERVICE: Final = "kratos-sync"


class ConfiguredValkey(EmbeddedValkey):
    """A Valkey, or a Sentinel, with a file of settings, on loopback or in a network."""

    def __init__(
        self,
        directory: Path,
        settings: Sequence[str] = (),
        *,
        program: Path | None = None,
        is_sentinel: bool = False,
        tls: bool = False,
        network: Network | None = None,
    ) -> None:
        super().__init__(directory)
        self.host = LOOPBACK if network is None else network.address
        self.port = free_port()
        self._settings = settings
        self._given_program = program
        self._is_sentinel = is_sentinel
        self._tls = tls
        self._network = network
        self._first_command: list[str] = []

    def client(self, **options: Any) -> redis.Redis:
        """A client of it, past everything."""
        return redis.Redis(self.host, self.port, socket_timeout=5, **options)

    def kill(self) -> None:
        """Let it die, as in a crash."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def shut_down(self) -> None:
        """Stop it in order."""
        self._end()

    def come_back(self) -> None:
        """Start it again, as it was configured last, with what it held."""
        self._start(self._first_command)

    def _prepare(self, undo: ExitStack) -> list[str]:
        lines = [
            "bind *",
            "protected-mode no",
            *([f"tls-port {self.port}", "port 0"] if self._tls else [f"port {self.port}"]),
            "dir .",
            f"pidfile {self._pid_file().name}",
            *self._settings,
        ]
        if not self._is_sentinel:
            lines += ["appendonly yes", 'save ""', "repl-diskless-sync-delay 0"]
        (self._directory / "valkey.conf").write_text("\n".join([*lines, ""]))
        command = [str(self._given_program or self._program()), "valkey.conf"]
        if self._is_sentinel:
            command.append("--sentinel")
        if self._network is not None:
            command = self._network.run(command, os.getuid(), os.getgid())
        self._first_command = command
        return command

    def _is_ready(self) -> bool:
        with suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
            return True
        return False


class Sentinels:
    """A primary, its replica and three Sentinels; settings are given to all of them, or to some."""

    def __init__(
        self,
        folder: Path,
        *,
        down_after: float,
        network: Network | None = None,
        program: Path | None = None,
        tls: bool = False,
        settings: Sequence[str] = (),
        of_servers: Sequence[str] = (),
        of_sentinels: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """`options` are those of the connections that this makes itself."""
        self.options = options
        of_servers = [*settings, *of_servers]
        kind: dict[str, Any] = {"program": program, "tls": tls}
        self.primary = ConfiguredValkey(folder / "primary", of_servers, network=network, **kind)
        follows = f"replicaof {self.primary.host} {self.primary.port}"
        self.replica = ConfiguredValkey(folder / "replica", [*of_servers, follows], **kind)
        own = [
            *settings,
            f"sentinel monitor {SERVICE} {self.primary.host} {self.primary.port} 2",
            f"sentinel down-after-milliseconds {SERVICE} {down_after * 1000:.0f}",
            f"sentinel failover-timeout {SERVICE} 10000",
            *of_sentinels,
        ]
        self.sentinels = [
            ConfiguredValkey(folder / f"sentinel-{each}", own, is_sentinel=True, **kind)
            for each in range(3)
        ]
        self.addresses = ",".join(f"{each.host}:{each.port}" for each in self.sentinels)
        self.url = f"redis+sentinel://{self.addresses}/{SERVICE}/0"
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            for server in (self.primary, self.replica):
                undo.enter_context(server)
            until(lambda: self.info(self.replica)["master_link_status"] == "up")
            for sentinel in self.sentinels:
                undo.enter_context(sentinel)
            until(lambda: all(map(self._knows_all, self.sentinels)))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def info(self, server: ConfiguredValkey) -> dict[str, Any]:
        """What a server says of its replication; of one that is away that it has no role."""
        try:
            with server.client(**self.options) as client:
                return dict(client.info("replication"))
        except redis.RedisError:
            return {"role": None, "master_link_status": None}

    def is_primary(self, server: ConfiguredValkey) -> bool:
        """Whether it is one, for itself."""
        return bool(self.info(server)["role"] == "master")

    def _knows_all(self, sentinel: ConfiguredValkey) -> bool:
        try:
            with sentinel.client(**self.options) as client:
                known = client.sentinel_masters()[SERVICE]
        except (redis.RedisError, KeyError):
            return False
        return bool(known["num-other-sentinels"] == 2 and known["num-slaves"] == 1)
