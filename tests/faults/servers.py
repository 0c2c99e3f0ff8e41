"""Servers that can be killed, and come back at the same address."""

import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import pika
import psutil
import redis

from kratos_sync.infrastructure.embedded import EmbeddedPostgres, EmbeddedValkey, ServerFailed
from kratos_sync.infrastructure.embedded.server import EmbeddedServer
from tests.infrastructure.bus.rabbitmq_server import ReturningRabbitmq
from tests.waiting import until

ENDS_SECONDS = 20.0
SETTINGS = {"max_wal_size": "64MB", "min_wal_size": "32MB"}


class Crashing(EmbeddedServer):
    """A server that may be killed, and is started again by who looks after it."""

    logs: Path
    """The folder for what it writes: its own directory may be full."""

    @property
    def log(self) -> Path:
        """What it wrote since its last start."""
        return self.logs / f"{self.name}.last.log"

    @property
    def kept_log(self) -> Path:
        """What it wrote before."""
        return self.logs / f"{self.name}.log"

    def _start(self, command: list[str]) -> None:
        self._command = command
        self.keep_log()
        super()._start(command)

    def keep_log(self) -> None:
        """Add to the log that is kept what it wrote since its last start."""
        if self.log.exists():
            with self.kept_log.open("ab") as kept:
                kept.write(self.log.read_bytes())
            self.log.unlink()

    def wrote(self) -> str:
        """Give all that it ever wrote."""
        logs = (self.kept_log, self.log)
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())

    def is_alive(self) -> bool:
        """Whether its first process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it again on what it held. Raises ServerFailed."""
        deadline = time.monotonic() + ENDS_SECONDS
        while self._is_running():
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name}: processes of before its end still run")
            time.sleep(0.02)
        self._start(self._command)

    def crash(self, number: Signals = SIGKILL) -> None:
        """Send its first process the signal, and all others SIGKILL if it is that; wait for them.

        So a container ends: nobody in it outlives the first process.
        """
        process = self._process
        assert process is not None
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(process.pid)
            tree = [first, *first.children(recursive=True)]
            for each in tree if number == SIGKILL else [first]:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(number)
        process.wait(ENDS_SECONDS)


class CrashingPostgres(Crashing, EmbeddedPostgres):
    """A PostgreSQL that crashes, on a unix socket."""

    def __init__(self, directory: Path, logs: Path) -> None:
        super().__init__(directory, SETTINGS)
        self.logs = logs

    @property
    def socket(self) -> Path:
        """The socket that it listens on."""
        query = parse_qs(urlsplit(self.url).query)
        return Path(query["host"][0], f".s.PGSQL.{query['port'][0]}")

    def processes(self) -> list[psutil.Process]:
        """All its processes, the first one first."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        return []


class CrashingBroker(Protocol):
    """A broker that crashes, always on one port."""

    port: int
    """The port that it listens on."""

    def is_alive(self) -> bool:
        """Whether its first process runs."""

    def start(self) -> None:
        """Start it again on what it held."""

    def crash(self) -> None:
        """Kill it."""

    def forget(self) -> None:
        """Throw away what it held; only when it does not run."""

    def wipe(self) -> None:
        """Throw away what it holds, while it runs."""

    def starving(self) -> AbstractContextManager[None]:
        """Leave it no memory meanwhile."""

    def url_at(self, port: int) -> str:
        """The URL of what leads to it at another port."""


class CrashingValkey(Crashing, EmbeddedValkey):
    """A Valkey that crashes, always on one port."""

    def __init__(self, directory: Path, logs: Path) -> None:
        super().__init__(directory)
        self.logs = logs
        shutil.rmtree(directory / "appendonlydir", ignore_errors=True)

    @property
    def port(self) -> int:
        return self._port

    def forget(self) -> None:
        shutil.rmtree(self._directory / "appendonlydir", ignore_errors=True)

    def wipe(self) -> None:
        with self._client() as client:
            client.flushall()

    @contextmanager
    def starving(self) -> Iterator[None]:
        """It refuses every command that might need some."""
        with self._client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "1")
            try:
                yield
            finally:
                client.config_set("maxmemory", "0")

    def url_at(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0"

    def _client(self) -> "redis.Redis":
        return redis.Redis.from_url(self.url, socket_timeout=5)


class CrashingRabbitmq(ReturningRabbitmq):
    """A RabbitMQ that crashes, always on one port."""

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        super().__init__(directory)

    def is_alive(self) -> bool:
        return self._is_there and self._running[-1].poll() is None

    def start(self) -> None:
        if self._is_there:
            self.go_away()
        self.begin_to_come_back()

    def crash(self) -> None:
        until(self.is_alive)
        self.go_away()

    def forget(self) -> None:
        shutil.rmtree(self._directory / "data", ignore_errors=True)

    def wipe(self) -> None:
        names = self.control("-q", "list_queues", "--no-table-headers", "name").split()
        with pika.BlockingConnection(pika.URLParameters(self.url)) as connection:
            for name in names:
                connection.channel().queue_delete(name)

    @contextmanager
    def starving(self) -> Iterator[None]:
        """It blocks whoever publishes."""
        self.control("set_vm_memory_high_watermark", "0.00001")
        try:
            yield
        finally:
            self.control("set_vm_memory_high_watermark", "0.4")

    def url_at(self, port: int) -> str:
        return f"amqp://guest:guest@127.0.0.1:{port}/"
