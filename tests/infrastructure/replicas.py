"""A primary and its standby, on loopback or in a network of the primary's own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP
from typing import Any, Final, Self

import psutil
import psycopg

from kratos_sync.infrastructure.embedded.server import ENVIRONMENT
from tests.infrastructure.servers_postgres import ReturningPostgres
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until

LOOPBACK: Final = "127.0.0.1"
RULES: Final = (
    "local all all trust\nhost all all samenet trust\nhost replication all samenet trust\n"
)


_numbers: Final = count()


class Network:
    """A network namespace that can be cut off: packets get lost, and nobody is informed."""

    def __init__(self) -> None:
        # A namespace goes away some time after it was removed.
        number = (os.getpid() * 7 + next(_numbers)) % 16_000
        self._name = f"ks{number}"
        self._ours = f"ks{number}"
        block = 4 * number
        self._host = f"10.213.{block // 256}.{block % 256 + 1}"
        self.address = f"10.213.{block // 256}.{block % 256 + 2}"

    @staticmethod
    def why_not() -> str | None:
        """Why none can be made here, if so."""
        if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("setpriv") is None:
            return "network namespaces need root, ip and setpriv"
        name = f"try{os.getpid()}"
        if subprocess.run(
            ["ip", "netns", "add", name], capture_output=True, check=False
        ).returncode:
            return "network namespaces cannot be made here"
        subprocess.run(["ip", "netns", "del", name], check=True)
        return None

    def __enter__(self) -> Self:
        _ip("netns", "add", self._name)
        _ip("link", "add", self._ours, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _ip("addr", "add", f"{self._host}/30", "dev", self._ours)
        _ip("link", "set", self._ours, "up")
        self._within("addr", "add", f"{self.address}/30", "dev", "eth0")
        self._within("link", "set", "lo", "up")
        self.mend()
        # Else the kernel would say after three seconds that the host is not there.
        shown = _ip("-n", self._name, "-o", "link", "show", "eth0").split()
        mac = shown[shown.index("link/ether") + 1]
        _ip("neigh", "replace", self.address, "lladdr", mac, "dev", self._ours, "nud", "permanent")
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "del", self._name)

    def cut(self) -> None:
        """Lose all packets."""
        self._within("link", "set", "eth0", "down")

    def mend(self) -> None:
        """Carry them again."""
        self._within("link", "set", "eth0", "up")

    def run(self, command: list[str], user: int, group: int) -> list[str]:
        """The command that runs another one there, as that user."""
        as_user = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        return [str(shutil.which("ip")), "netns", "exec", self._name, *as_user, *command]

    def _within(self, *words: str) -> None:
        _ip("-n", self._name, *words)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, check=True, text=True, timeout=10)
    return done.stdout


class Primary(ReturningPostgres):
    """A PostgreSQL on loopback, or in a network."""

    def __init__(self, folder: Path, network: Network | None = None, **settings: str) -> None:
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
        user, group = self._identity() or (None, None)
        source = f"postgresql://postgres@{self._primary.address}/?application_name=standby"
        backup = [initdb.with_name("pg_basebackup"), "-D", copy, "-d", source, "-R", "-c", "fast"]
        subprocess.run(
            backup,
            env=ENVIRONMENT,
            capture_output=True,
            check=True,
            timeout=DEADLINE_SECONDS,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )
        copy.rename(self._data)

    def _is_ready(self) -> bool:
        with suppress(FileNotFoundError):
            return self._pid_file().read_text().split()[-1] in {"standby", "ready"}
        return False

    def promote(self) -> None:
        """Make it the primary."""
        assert self.ask("SELECT pg_promote()") == [(True,)]
