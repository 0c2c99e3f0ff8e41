"""A real RabbitMQ on this machine, that goes away and comes back."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import pika

from kratos_sync.infrastructure.bus.rabbitmq import CONNECTION_ERRORS
from tests.infrastructure.bus.servers import Wire
from tests.ports import free_ports
from tests.waiting import DEADLINE_SECONDS, until

# Debian's command in the path is a wrapper that would become another user.
PROGRAMS = (Path("/usr/lib/rabbitmq/bin/rabbitmq-server"), shutil.which("rabbitmq-server"))
START_SECONDS = 180.0


def program() -> str | None:
    """The server's own start script, where it is installed."""
    found = (str(path) for path in PROGRAMS if path is not None and Path(path).exists())
    return next(found, None) if shutil.which("epmd") else None


class WiredRabbitmq:
    """A RabbitMQ behind a wire: for those who use it, it is away or there in a moment."""

    def __init__(self, server: "ReturningRabbitmq", wire: Wire) -> None:
        self._server, self._wire = server, wire
        self.url = f"amqp://guest:guest@127.0.0.1:{wire.port}/"
        self.go_away, self.come_back = wire.cut, wire.mend
        self.halt, self.go_on = server.halt, server.go_on


class ReturningRabbitmq:
    """One node with a folder, ports and a name server of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port, distribution, names = free_ports(3)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._settings = directory / "rabbitmq.conf"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_CONFIG_FILE": str(self._settings),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        self._running: list[subprocess.Popen[bytes]] = []
        self._is_there = False

    def __enter__(self) -> Self:
        self._directory.mkdir(mode=0o700)
        (self._directory / "plugins").write_text("[].\n")
        self._run("epmd")
        try:
            # Else the server would start another, that outlives it.
            until(self._names_are_known)
            self.come_back()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._running:
            self._end()

    def go_away(self) -> None:
        """Die, as in a crash."""
        self._end()
        self._is_there = False

    def come_back(self, *, wiped: bool = False) -> None:
        """Be there again, at the same address; a wiped one knows nothing of what was."""
        if wiped:
            shutil.rmtree(self._directory / "data")
        self._settings.write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}")
        found = program()
        assert found is not None
        self._run(found)
        self._is_there = True
        until(self._answers, seconds=START_SECONDS)

    def be_there(self) -> None:
        """Come back, unless it is there."""
        if not self._is_there:
            self.come_back()
        until(self._answers, seconds=START_SECONDS)

    @contextmanager
    def short_of_disk(self) -> Iterator[None]:
        """Let everybody connect, and nobody publish."""
        self._control("set_disk_free_limit", "900000GB")
        try:
            yield
        finally:
            self._control("set_disk_free_limit", "50MB")

    def halt(self) -> None:
        """Say nothing more, and let everybody connect."""
        os.killpg(self._running[-1].pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self._running[-1].pid, signal.SIGCONT)

    def _control(self, *command: str) -> None:
        found = program()
        assert found is not None
        control = str(Path(found).with_name("rabbitmqctl"))
        environment = {**self._environment, "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ""}
        asked = subprocess.run(
            [control, *command],
            cwd=self._directory,
            env=environment,
            capture_output=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr

    def _run(self, *command: str) -> None:
        with (self._directory / "out").open("ab") as out:
            self._running.append(
                subprocess.Popen(
                    command,
                    cwd=self._directory,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )

    def _end(self) -> None:
        ending = self._running.pop()
        with suppress(ProcessLookupError):
            os.killpg(ending.pid, signal.SIGKILL)
        ending.wait(DEADLINE_SECONDS)

    def _names_are_known(self) -> bool:
        address = ("127.0.0.1", int(self._environment["ERL_EPMD_PORT"]))
        with suppress(OSError), socket.create_connection(address, timeout=2):
            return True
        return False

    def _answers(self) -> bool:
        parameters = pika.URLParameters(self.url)
        parameters.socket_timeout = parameters.stack_timeout = 20
        try:
            pika.BlockingConnection(parameters).close()
        except CONNECTION_ERRORS:
            assert self._running[-1].poll() is None, (self._directory / "out").read_text()[-2000:]
            return False
        return True
