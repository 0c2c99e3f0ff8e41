"""Whether a process works, and whether it is of use, as it says itself."""

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.infrastructure.observability.dependencies import Dependency
from kratos_sync.infrastructure.observability.health import Health
from kratos_sync.infrastructure.observability.http_server import Response
from kratos_sync.infrastructure.observability.observer import Observer
from kratos_sync.infrastructure.observability.service_manager import ServiceManager
from tests.waiting import DEADLINE_SECONDS, until

A_MOMENT = 0.02
FOR_EVER = 3600.0


class Observed(Observer):
    """A process with a loop that turns when the test says so, and what it depends on."""

    def __init__(self, **dependencies: Dependency) -> None:
        super().__init__()
        self._dependencies = dependencies

    @property
    def dependencies(self) -> Mapping[str, Dependency]:
        return self._dependencies


@pytest.fixture
def checking() -> Iterator[list[Dependency]]:
    """All that is checked in the test, which ends with it."""
    dependencies: list[Dependency] = []
    yield dependencies
    for each in dependencies:
        each.stop()


def up() -> None:
    """A check that finds nothing wrong."""


def answered(response: Response) -> tuple[int, dict[str, Any]]:
    return response.status.value, json.loads(response.body)


HealthOf = Callable[..., Health]


@pytest.fixture
def health_of() -> Iterator[HealthOf]:
    """Makes the health of a process that stops when the test ends."""
    made: list[Health] = []

    def health(
        observer: Observer, longest: float = FOR_EVER, environment: dict[str, str] | None = None
    ) -> Health:
        made.append(
            Health("relay", observer, ServiceManager(environment or {}), {"relay": longest})
        )
        return made[-1]

    yield health
    for each in made:
        each.stopping()


def test_a_process_that_works_is_live_and_ready(health_of: HealthOf) -> None:
    health = health_of(Observer())
    health.started()

    assert answered(health.live()) == (200, {"status": "ok", "process": "relay"})
    assert answered(health.ready()) == (200, {"status": "ok", "process": "relay"})


def test_a_process_that_starts_is_live_and_not_ready(health_of: HealthOf) -> None:
    health = health_of(Observer(), longest=-1)

    assert health.live().status == 200
    status, document = answered(health.ready())
    assert (status, document["reasons"]) == (503, {"process": "is starting"})


def test_a_process_that_stops_is_live_and_not_ready_however_long_it_takes(
    health_of: HealthOf,
) -> None:
    health = health_of(Observer(), longest=-1)
    ended = threading.Thread(target=up)
    health.watch_threads(lambda: [ended])
    health.started()
    health.stopping()

    assert health.live().status == 200
    assert answered(health.ready())[1]["reasons"] == {"process": "is stopping"}


def test_a_loop_that_does_not_turn_is_not_live_until_it_turns_again(health_of: HealthOf) -> None:
    observer = Observer()
    health = health_of(observer, longest=A_MOMENT)
    health.started()
    until(lambda: health.live().status == 503)

    status, document = answered(health.ready())
    assert (status, document["down"]) == (503, ["loop"])
    assert document["reasons"]["loop"].startswith("has not turned for ")

    patient = health_of(observer)
    patient.started()
    assert patient.live().status == 200


def test_each_loop_of_a_process_with_several_turns_by_itself() -> None:
    observer = Observer()
    health = Health("delivery", observer, loops={"relay": A_MOMENT, "worker": FOR_EVER})
    health.started()

    def only_the_worker_turns() -> bool:
        observer.turned("worker")
        return health.live().status == 503

    until(only_the_worker_turns)
    assert answered(health.live())[1]["down"] == ["loop of the relay"]
    observer.turned("relay")
    assert health.what_hangs() == {}
    health.stopping()


def test_a_thread_that_ended_is_named(health_of: HealthOf) -> None:
    health = health_of(Observer())
    goes_on = threading.Event()
    threads = [
        threading.Thread(target=goes_on.wait, args=(DEADLINE_SECONDS,), name="purge"),
        threading.Thread(target=up, name="erase"),
    ]
    health.watch_threads(lambda: threads)
    for thread in threads:
        thread.start()
    threads[1].join()
    health.started()

    status, document = answered(health.live())
    goes_on.set()
    assert (status, document["reasons"]) == (503, {"threads": "1 of 2 ended (erase)"})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LedgerUnavailable("PostgreSQL cannot be reached"), "PostgreSQL cannot be reached"),
        (ConnectionError("redis://:secret@10.0.0.7/0 refused"), "ConnectionError"),
    ],
)
def test_what_it_depends_on_makes_it_unready_with_a_reason_and_no_driver_s_text(
    health_of: HealthOf, checking: list[Dependency], error: Exception, reason: str
) -> None:
    def away() -> None:
        raise error

    database, broker = Dependency("ledger", FOR_EVER), Dependency("broker", A_MOMENT)
    checking += [database, broker]
    database.start(up)
    health = health_of(Observed(database=database, broker=broker))
    health.started()
    assert answered(health.ready())[1]["reasons"]["broker"] == "has not answered"

    broker.start(away)
    until(lambda: database.is_up and broker.problem == reason)

    assert answered(health.ready()) == (
        503,
        {
            "status": "unavailable",
            "process": "relay",
            "down": ["broker"],
            "reasons": {"broker": reason},
        },
    )
    assert health.live().status == 200


def test_what_it_depends_on_makes_it_ready_again(
    health_of: HealthOf, checking: list[Dependency]
) -> None:
    is_back = threading.Event()

    def check() -> None:
        if not is_back.is_set():
            raise LedgerUnavailable("PostgreSQL cannot be reached")

    database = Dependency("ledger", A_MOMENT)
    checking.append(database)
    database.start(check)
    health = health_of(Observed(database=database))
    health.started()
    until(lambda: database.problem == "PostgreSQL cannot be reached")
    is_back.set()

    until(lambda: health.ready().status == 200)


class Systemd:
    """The socket that systemd gives a service."""

    def __init__(self, address: str, watchdog_seconds: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0"))
        self._socket.settimeout(DEADLINE_SECONDS)
        self.environment = {
            "NOTIFY_SOCKET": address,
            "WATCHDOG_USEC": str(round(watchdog_seconds * 1e6)),
            "WATCHDOG_PID": "1",
            "PATH": "/bin",
        }

    def receive(self) -> str:
        return self._socket.recv(1_000).decode()

    def receives_nothing_for(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            return not self.receive()
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(DEADLINE_SECONDS)

    def received_all(self) -> list[str]:
        self._socket.setblocking(False)
        received = []
        try:
            while True:
                received.append(self.receive())
        except BlockingIOError:
            return received

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["a file", "an abstract address"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    path = str(tmp_path / "notify")
    systemd = Systemd(path if request.param == "a file" else f"@{path}", 4 * A_MOMENT)
    yield systemd
    systemd.close()


def test_systemd_receives_that_it_is_ready_that_it_lives_and_that_it_stops(
    health_of: HealthOf, systemd: Systemd
) -> None:
    health = health_of(Observer(), environment=systemd.environment)
    health.started()
    received = [systemd.receive() for _ in range(3)]
    health.stopping()
    health.stopping()

    assert received == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    assert [each for each in systemd.received_all() if each != "WATCHDOG=1"] == ["STOPPING=1"]
    until(lambda: systemd.receives_nothing_for(10 * A_MOMENT))


def test_systemd_receives_nothing_from_a_process_whose_loop_hangs(
    health_of: HealthOf, systemd: Systemd
) -> None:
    observer = Observer()
    health = health_of(observer, A_MOMENT, systemd.environment)
    with capture_logs() as logs:
        health.started()
        until(lambda: health.live().status == 503)
        until(lambda: [line["event"] for line in logs] == ["not_live"])
        systemd.received_all()

        assert systemd.receives_nothing_for(10 * A_MOMENT)
        until(lambda: observer.turned("relay") or "WATCHDOG=1" in systemd.received_all())
    assert [line["event"] for line in logs][:2] == ["not_live", "live_again"]


def test_systemd_does_not_receive_that_a_process_stops_that_is_replaced(
    health_of: HealthOf, systemd: Systemd
) -> None:
    health = health_of(Observer(), environment=systemd.environment)
    health.started()
    health.stopping(is_replaced=True)
    health.stopping()

    assert set(systemd.received_all()) <= {"READY=1", "WATCHDOG=1"}


def test_no_child_process_takes_itself_for_the_service(systemd: Systemd) -> None:
    ServiceManager(systemd.environment)

    assert systemd.environment == {"PATH": "/bin"}


def test_a_service_manager_that_is_gone_disturbs_nobody(systemd: Systemd) -> None:
    address = systemd.environment["NOTIFY_SOCKET"]
    manager = ServiceManager(systemd.environment)
    systemd.close()

    manager.send("READY=1")

    Path(address).unlink(missing_ok=True)
    restarted = Systemd(address, A_MOMENT)
    manager.send("WATCHDOG=1")
    assert restarted.received_all() == ["WATCHDOG=1"]
    restarted.close()


def test_without_a_service_manager_nothing_is_sent() -> None:
    manager = ServiceManager({"WATCHDOG_USEC": "odd"})

    assert manager.watchdog_seconds is None
    manager.send("READY=1")
