"""A primary and its standby, on loopback or in a network of the primary's own."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP
from typing import Any, Final, Protocol, Self

import psutil
import psycopg

from tests.infrastructure.servers_postgres import ReturningPostgres
from tests.namespaces import Namespace, ip
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until

LOOPBACK: Final = "127.0.0.1"
RULES: Final = (
    "local all all trust\nhost all all samenet trust\nhost replication all samenet trust\n"
)


_numbers: Final = count()


class Network:
    """A host that can be cut off: packets get lost, and nobody is informed."""

    def __init__(self) -> None:
        # A namespace goes away some time after it was removed.
        number = (os.getpid() * 7 + next(_numbers)) % 16_000
        self._there = Namespace("primary")
        self._ours = f"ks{number}"
        block = 4 * number
        self.host = f"10.213.{block // 256}.{block % 256 + 1}"
        self.address = f"10.213.{block // 256}.{block % 256 + 2}"
        self.run = self._there.run

    def __enter__(self) -> Self:
        self._there.add()
        there = ["peer", "name", "eth0", "netns", self._there.name]
        ip("link", "add", self._ours, "type", "veth", *there)
        ip("addr", "add", f"{self.host}/30", "dev", self._ours)
        ip("link", "set", self._ours, "up")
        self._there.ip("addr", "add", f"{self.address}/30", "dev", "eth0")
        self.mend()
        # Else the kernel would say after three seconds that the host is not there.
        shown = self._there.ip("-o", "link", "show", "eth0").split()
        mac = shown[shown.index("link/ether") + 1]
        ip("neigh", "replace", self.address, "lladdr", mac, "dev", self._ours, "nud", "permanent")
        return self

    def __exit__(self, *_: object) -> None:
        self._there.remove()

    def cut(self) -> None:
        """Lose all packets."""
        self._there.ip("link", "set", "eth0", "down")

    def mend(self) -> None:
        """Carry them again."""
        self._there.ip("link", "set", "eth0", "up")


class OwnNetwork(Protocol):
    """Where a server may run."""

    address: str

    def run(self, command: list[str], user: int, group: int) -> list[str]:
        """The command that runs another one there, as that user."""


class Primary(ReturningPostgres):
    """A PostgreSQL on loopback, or in a network."""

    def __init__(self, folder: Path, network: OwnNetwork | None = None, **settings: str) -> None:
        self.port = free_port()
        self.host = LOOPBACK if network is None else network.address
        self.address = f"{self.host}:{self.port}"
        self._network = network
        self._as_root = False
        folder.mkdir(parents=True)
        rules = folder / "pg_hba.conf"
        rules.write_text(RULES)
        given = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "hba_file": str(rules),
            # What a failover needs to know is not overwritten.
            "wal_keep_size": "128MB",
            "wal_sender_timeout": "5s",
            "wal_receiver_timeout": "5s",
        }
        super().__init__(folder, {**given, **settings})

    def connect(self) -> psycopg.Connection[Any]:
        """A connection to it, past everything."""
        url = f"postgresql://postgres@{self.address}/postgres?connect_timeout=5"
        return psycopg.connect(url, autocommit=True)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Ask it something."""
        with self.connect() as connection:
            return connection.execute(statement.encode()).fetchall()

    def shut_down(self) -> None:
        """Stop it in order, as `pg_ctl stop -m fast` does."""
        self._signal(SIGINT)

    def crash(self) -> None:
        """Kill all of its processes."""
        self._signal(SIGKILL)

    def _signal(self, number: int) -> None:
        assert self.pid is not None
        first = psutil.Process(self.pid)
        for each in [first, *first.children(recursive=True)] if number == SIGKILL else [first]:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(number)
        until(lambda: not self._is_running())
        self._end()

    @contextmanager
    def sending_nothing(self) -> Iterator[None]:
        """Let it send nothing to its standby, although both run; it stays so if it ends within."""
        [[sender]] = self.ask("SELECT pid FROM pg_stat_replication")
        os.kill(sender, SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(sender, SIGCONT)

    def wait_for_its_standby(self) -> None:
        """Have every commit on both from now on."""
        self.ask_nothing("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        self.ask_nothing("SELECT pg_reload_conf()")
        until(lambda: self.ask("SELECT sync_state FROM pg_stat_replication") == [("sync",)])

    def ask_nothing(self, statement: str) -> None:
        """Let it do something."""
        with self.connect() as connection:
            connection.execute(statement.encode())

    def _prepare(self, undo: ExitStack) -> list[str]:
        command = super()._prepare(undo)
        if self._network is not None:
            user, group = super()._identity() or (0, 0)
            self._command = command = self._network.run(command, user, group)
        return command

    def _start(self, command: list[str]) -> None:
        self._as_root = self._network is not None
        try:
            super()._start(command)
        finally:
            self._as_root = False

    def _identity(self) -> tuple[int, int] | None:
        return None if self._as_root else super()._identity()


class Standby(Primary):
    """A copy of a primary that follows it until it is promoted."""

    def __init__(self, folder: Path, primary: Primary) -> None:
        super().__init__(folder)
        self._primary = primary

    def _initialize(self, initdb: Path) -> None:
        copy = self._directory / "data.new"
        copy.mkdir(mode=0o700)
        self._give(copy)
        source = f"postgresql://postgres@{self._primary.address}/?application_name=standby"
        options = ("-D", copy, "-d", source, "-R", "-c", "fast")
        self._run(initdb.with_name("pg_basebackup"), *options, seconds=DEADLINE_SECONDS)
        copy.rename(self._data)

    def _is_ready(self) -> bool:
        with suppress(FileNotFoundError):
            return self._pid_file().read_text().split()[-1] in {"standby", "ready"}
        return False

    def promote(self) -> None:
        """Make it the primary."""
        assert self.ask("SELECT pg_promote()") == [(True,)]
