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
from tests.certificates import Certificates
from tests.infrastructure.bus.servers import Wire
from tests.infrastructure.replicas import Network
from tests.ports import free_ports
from tests.programs import missing
from tests.waiting import DEADLINE_SECONDS, until

# Debian's command in the path is a wrapper that would become another user.
PROGRAMS = (Path("/usr/lib/rabbitmq/bin/rabbitmq-server"), shutil.which("rabbitmq-server"))
START_SECONDS = 180.0


def program() -> str | None:
    """The server's own start script, where it is installed."""
    found = (str(path) for path in PROGRAMS if path is not None and Path(path).exists())
    return next(found, None) if shutil.which("epmd") else None


def require_rabbitmq() -> None:
    """Skip the test where it is not installed."""
    if program() is None:
        missing("RabbitMQ is not installed here (Debian: apt-get install rabbitmq-server)")


class WiredRabbitmq:
    """A RabbitMQ behind a wire: for those who use it, it is away or there in a moment."""

    def __init__(self, server: "ReturningRabbitmq", wire: Wire) -> None:
        self._server, self._wire = server, wire
        self.url = f"amqp://guest:guest@127.0.0.1:{wire.port}/"
        self.go_away, self.come_back = wire.cut, wire.mend
        self.halt, self.go_on = server.halt, server.go_on


class ReturningRabbitmq:
    """One node with a folder, ports and a name server of its own, also by TLS with certificates."""

    def __init__(
        self,
        directory: Path,
        certificates: Certificates | None = None,
        *,
        host: str = "127.0.0.1",
        network: Network | None = None,
    ) -> None:
        self._directory = directory
        self._network = network
        self.host = host
        self.port, self.tls_port, distribution, names = free_ports(4)
        self.url = f"amqp://guest:guest@{host}:{self.port}/"
        self._settings = directory / "rabbitmq.conf"
        self._lines = [f"listeners.tcp.1 = {host}:{self.port}", "loopback_users = none"]
        if certificates is not None:
            self._lines += [
                f"listeners.ssl.1 = {host}:{self.tls_port}",
                f"ssl_options.cacertfile = {certificates.ca}",
                f"ssl_options.certfile = {certificates.server}",
                f"ssl_options.keyfile = {certificates.server_key}",
                "ssl_options.verify = verify_peer",
                "ssl_options.fail_if_no_peer_cert = true",
            ]
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
        try:
            self.prepare()
            self.come_back()
        except BaseException:
            self.__exit__()
            raise
        return self

    def prepare(self) -> None:
        """Write what it needs, and start what knows nodes by their names."""
        self._directory.mkdir(mode=0o700, parents=True)
        (self._directory / "plugins").write_text("[].\n")
        self._start_names()

    def _start_names(self) -> None:
        self._run("epmd")
        # Else the server would start another, that outlives it.
        until(self._names_are_known)

    def __exit__(self, *_: object) -> None:
        while self._running:
            self._end()

    def go_away(self) -> None:
        """Die, as in a crash."""
        self._end()
        self._is_there = False

    def shut_down(self) -> None:
        """Stop in order."""
        self.control("stop")
        self.go_away()

    def come_back(self, *, wiped: bool = False) -> None:
        """Be there again, at the same address; a wiped one knows nothing of what was."""
        if wiped:
            shutil.rmtree(self._directory / "data")
        self.begin_to_come_back()
        until(self._answers, seconds=START_SECONDS)

    def begin_to_come_back(self) -> None:
        """The same, without waiting for it."""
        self._settings.write_text("\n".join([*self._lines, ""]))
        found = program()
        assert found is not None
        self._run(found)
        self._is_there = True

    def be_there(self) -> None:
        """Come back, unless it is there."""
        if not self._is_there:
            self.come_back()
        until(self._answers, seconds=START_SECONDS)

    @contextmanager
    def short_of_disk(self) -> Iterator[None]:
        """Let everybody connect, and nobody publish."""
        self.control("set_disk_free_limit", "900000GB")
        try:
            yield
        finally:
            self.control("set_disk_free_limit", "50MB")

    def halt(self) -> None:
        """Say nothing more, and let everybody connect."""
        os.killpg(self._running[-1].pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self._running[-1].pid, signal.SIGCONT)

    def control(self, *command: str) -> str:
        """Run a command of rabbitmqctl, and return what it says."""
        found = program()
        assert found is not None
        control = str(Path(found).with_name("rabbitmqctl"))
        environment = {**self._environment, "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ""}
        asked = subprocess.run(
            self._there([control, *command]),
            cwd=self._directory,
            env=environment,
            capture_output=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert asked.returncode == 0, asked.stderr
        return asked.stdout.decode()

    def _run(self, *command: str) -> None:
        with (self._directory / "out").open("ab") as out:
            self._running.append(
                subprocess.Popen(
                    self._there([*command]),
                    cwd=self._directory,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )

    def _there(self, command: list[str]) -> list[str]:
        if self._network is None:
            return command
        return self._network.run(command, os.getuid(), os.getgid())

    def _end(self) -> None:
        ending = self._running.pop()
        with suppress(ProcessLookupError):
            os.killpg(ending.pid, signal.SIGKILL)
        ending.wait(DEADLINE_SECONDS)

    def _names_are_known(self) -> bool:
        address = (self.host, int(self._environment["ERL_EPMD_PORT"]))
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
