"""Every process says how it is, on a port and to systemd; `kratos-sync healthcheck` asks it."""

import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from uuid import uuid4

import psutil
import pytest

from tests.databases import MigratedDatabase
from tests.end_to_end import hanging
from tests.end_to_end.hanging import BEGAN, GOES_ON, SECONDS
from tests.end_to_end.processes import KRATOS_SYNC, Processes
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until

HANGING = [sys.executable, str(Path(hanging.__file__))]
NOWHERE = "127.0.0.1:1"
KEY = "a-key-of-16-characters"


class Checked(Processes):
    """Processes with ports of their own on which they say how they are."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(folder, settings)
        self._ports: dict[str, int] = {}

    def begin(
        self, name: str, *options: str, program: Sequence[str] = KRATOS_SYNC, **settings: str
    ) -> None:
        port = str(free_port())
        self._ports[name] = int(port)
        self.start(name, name, *options, program=program, METRICS_PORT=port, **settings)

    def check(self, of: str, *options: str) -> tuple[int, str]:
        """The exit code of the check, and the line that it says."""
        code, said = self.run("healthcheck", *options, METRICS_PORT=str(self._ports[of]))
        return code, said.strip()

    def is_ready(self, name: str) -> bool:
        return self.check(name, name) == (0, "ready")


@pytest.fixture
def settings(migrated_database: MigratedDatabase, broker_url: str) -> Iterator[dict[str, str]]:
    with migrated_database() as url:
        yield {"DATABASE_URL": url, "BROKER_URL": broker_url, "KRATOS_WEBHOOK_API_KEYS": KEY}


@pytest.fixture
def processes(tmp_path: Path, settings: dict[str, str]) -> Iterator[Checked]:
    with Checked(tmp_path, settings) as processes:
        yield processes


def test_each_process_is_ready_once_it_works_and_no_other_is_taken_for_it(
    processes: Checked,
) -> None:
    commands = {
        "api": ["--port", str(free_port())],
        "relay": [],
        "worker": ["--threads", "1"],
        "reconcile": ["--every", "1h"],
        "console": ["--link", "--port", str(free_port())],
    }
    for name, options in commands.items():
        processes.begin(name, *options, KRATOS_ADMIN_URL=f"http://{NOWHERE}")
    for name in commands:
        until(lambda: processes.is_ready(name))  # noqa: B023
        assert processes.check(name, "--live") == (0, "live")
    code, said = processes.check("relay", "worker")
    assert code == 1
    assert said.endswith("answers the relay, and not the worker")
    assert set(processes.stop(*commands).values()) == {0}
    code, said = processes.check("relay", "relay")
    assert code == 1
    assert said.endswith("Connection refused")


def test_a_process_without_its_broker_is_live_and_not_ready(processes: Checked) -> None:
    processes.begin("relay", BROKER_URL=f"redis://:secret@{NOWHERE}/0")
    until(lambda: processes.check("relay")[1] == "not ready: broker: ConnectionError")

    assert processes.check("relay")[0] == 1
    assert processes.check("relay", "--live") == (0, "live")


def test_a_process_that_waits_for_its_database_is_live_and_not_ready(processes: Checked) -> None:
    away = f"postgresql://ada:secret@{NOWHERE}/kratos"
    processes.begin("worker", DATABASE_URL=away)

    until(lambda: processes.check("worker") == (1, "not ready: process: is starting"))
    assert processes.check("worker", "--live") == (0, "live")


def test_a_process_that_is_halted_does_not_answer(processes: Checked) -> None:
    processes.begin("relay")
    until(lambda: processes.is_ready("relay"))
    os.kill(processes.pid_of("relay"), signal.SIGSTOP)

    code, said = processes.check("relay", "relay")
    os.kill(processes.pid_of("relay"), signal.SIGCONT)

    assert code == 1
    assert "no answer from port" in said
    until(lambda: processes.is_ready("relay"))


def test_a_consumer_that_takes_long_keeps_its_worker_live_and_ready(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    with Checked(tmp_path, settings) as processes:
        assert processes.run("migrate", program=HANGING)[0] == 0
        processes.start_api(program=HANGING)
        processes.begin("worker", "--threads", "1", program=HANGING)
        processes.begin("relay", program=HANGING)
        call(processes)
        until((tmp_path / BEGAN).exists)
        longer = monotonic() + 2 * SECONDS
        until(lambda: monotonic() > longer)

        assert processes.check("worker", "worker") == (0, "ready")
        (tmp_path / GOES_ON).touch()
        processes.wait_for("worker", "consumer=TakeLong")


def call(processes: Processes) -> None:
    identity = {
        "id": str(uuid4()),
        "schema_id": "default",
        "traits": {"email": "ada@example.org"},
        "created_at": "2026-07-01T12:00:00Z",
        "updated_at": "2026-07-01T12:00:00Z",
    }
    answer = processes.http.post(
        "/kratos/sync-identity", json={"identity": identity}, headers={"X-Api-Key": KEY}
    )
    assert answer.status_code == 200


class Systemd:
    """The socket on which systemd receives from a service."""

    def __init__(self, path: Path, watchdog_seconds: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.environment = {
            "NOTIFY_SOCKET": str(path),
            "WATCHDOG_USEC": str(round(watchdog_seconds * 1e6)),
        }

    def receive(self, within: float = DEADLINE_SECONDS) -> str | None:
        self._socket.settimeout(within)
        try:
            return self._socket.recv(1_000).decode()
        except TimeoutError:
            return None

    def receive_until(self, state: str) -> list[str | None]:
        received = []
        while not received or received[-1] not in {state, None}:
            received.append(self.receive())
        return received

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify", 0.4)
    yield systemd
    systemd.close()


def test_systemd_receives_from_a_relay_and_nothing_while_it_is_halted(
    processes: Checked, systemd: Systemd
) -> None:
    processes.begin("relay", **systemd.environment)
    assert systemd.receive() == "READY=1"
    assert systemd.receive() == "WATCHDOG=1"
    assert "relay_started" in processes.said("relay")

    os.kill(processes.pid_of("relay"), signal.SIGSTOP)
    until(lambda: systemd.receive(within=1) is None)
    os.kill(processes.pid_of("relay"), signal.SIGCONT)
    assert systemd.receive() == "WATCHDOG=1"

    assert processes.stop("relay") == {"relay": 0}
    assert systemd.receive_until("STOPPING=1")[-1] == "STOPPING=1"
    assert systemd.receive(within=0.1) is None


def test_systemd_receives_from_the_worker_process_that_consumes_and_nothing_of_its_replacement(
    processes: Checked, systemd: Systemd
) -> None:
    processes.begin("worker", **systemd.environment)
    assert systemd.receive() == "READY=1"
    (child,) = psutil.Process(processes.pid_of("worker")).children()
    child.kill()

    assert set(systemd.receive_until("READY=1")) <= {"WATCHDOG=1", "READY=1"}
    assert systemd.receive() == "WATCHDOG=1"
    assert processes.stop("worker") == {"worker": 0}
    assert systemd.receive_until("STOPPING=1")[-1] == "STOPPING=1"


def test_systemd_receives_nothing_from_an_api_whose_event_loop_hangs(
    tmp_path: Path, settings: dict[str, str], systemd: Systemd
) -> None:
    with Checked(tmp_path, settings) as processes:
        processes.begin("api", "--port", str(free_port()), program=HANGING, **systemd.environment)
        assert systemd.receive() == "READY=1"
        assert systemd.receive() == "WATCHDOG=1"
        os.kill(processes.pid_of("api"), signal.SIGUSR1)
        until(lambda: "not_live" in processes.said("api"))
        until(lambda: systemd.receive(within=1) is None)

        code, said = processes.check("api", "--live")
        assert code == 1
        assert said.startswith("not live: loop: has not turned for ")
        os.kill(processes.pid_of("api"), signal.SIGUSR2)
        assert systemd.receive() == "WATCHDOG=1"
        until(lambda: processes.is_ready("api"))
