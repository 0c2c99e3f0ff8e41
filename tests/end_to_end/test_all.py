"""`kratos-sync all`: api, relay, worker and reconcile with PostgreSQL and nothing else."""

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter

import httpx
import psutil
import pytest

from kratos_sync.testing.kratos import InMemoryDocuments
from tests.databases import MigratedDatabase
from tests.end_to_end.processes import Processes
from tests.end_to_end.service import AllInOne, assert_the_books_are_right, differences
from tests.end_to_end.test_faults import HELD, a_thousand_calls, introduce, lives
from tests.end_to_end.test_health import Systemd
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.parts import DELIVERY, part_of
from tests.ports import free_pair
from tests.recorded import Call
from tests.waiting import until

KEY = "a-key-of-16-characters"
# Nothing waits for a lease to run out.
LEASE_SECONDS = 3_600


@pytest.fixture(autouse=True)
def dated_now() -> None:
    lives.cache_clear()


@pytest.fixture(scope="module")
def running(
    migrated_database: MigratedDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AllInOne]:
    folder = tmp_path_factory.mktemp("all")
    with (
        migrated_database() as url,
        AllInOne(folder, url, lease_seconds=LEASE_SECONDS) as service,
    ):
        yield service


@pytest.fixture
def service(running: AllInOne) -> Iterator[AllInOne]:
    yield running
    running.forget()


def held_in_the_middle_of(service: AllInOne, calls: list[Call], undo: ExitStack) -> int:
    """Send the calls, and hold one of the rows that they are about: return what is left."""
    undo.enter_context(service.holding(HELD))
    assert service.post(calls) == [200] * len(calls)
    until(lambda: service.waits_for_a_lock() and service.count("attempts") >= 100)
    return service.count("deliveries")


def test_a_thousand_calls_end_in_the_right_rows(service: AllInOne) -> None:
    received = introduce(service, HELD) + 1_000
    assert service.post(a_thousand_calls(3)) == [200] * 1_000
    service.settle()

    assert differences(service, lives().listing) == []
    assert_the_books_are_right(service, received, lives())


def test_what_was_in_memory_when_it_was_killed_is_sent_again_within_moments(
    service: AllInOne,
) -> None:
    received = introduce(service, HELD) + 1_000
    (api,) = service.children("api")
    with ExitStack() as undo:
        left = held_in_the_middle_of(service, a_thousand_calls(4), undo)
        service.signal("worker", signal.SIGKILL)
        began = perf_counter()
    assert 0 < left < 1_000

    service.settle()

    print(f"\n{left} events were left, and done {perf_counter() - began:.1f} s after the kill")
    assert differences(service, lives().listing) == []
    assert service.count("attempts", "outcome = 'succeeded'") >= received
    assert service.children("api") == [api]


def test_calls_are_answered_while_the_other_process_is_away(service: AllInOne) -> None:
    (delivery,) = service.children("worker")
    delivery.suspend()
    calls = lives().calls[:20]
    assert service.post(calls) == [200] * 20
    delivery.kill()

    service.settle()
    assert service.people().keys() == {call.person for call in calls}


def test_an_api_that_was_killed_is_replaced_and_the_other_process_works_on(
    service: AllInOne,
) -> None:
    (api,), (delivery,) = service.children("api"), service.children("worker")
    api.kill()
    until(lambda: api not in service.children("api") and service._answers())

    assert service.post(lives().calls[:5]) == [200] * 5
    service.settle()
    assert service.children("worker") == [delivery]
    assert '"api_replaced"' in service.log("all")
    assert service.log("all").count('"api_started"') > 1


def test_stopping_releases_what_is_in_memory(service: AllInOne) -> None:
    received = introduce(service, HELD) + 1_000
    with ExitStack() as undo:
        held_in_the_middle_of(service, a_thousand_calls(5), undo)
        assert service.count("deliveries", "leased") > 0
        service.signal_alone("all", signal.SIGTERM)
        until(lambda: '"stopping"' in service.log("worker"))
        service.signal_alone("all", signal.SIGTERM)
        # Else a backend that waits for it may keep deliveries locked for longer than a stop takes.
        undo.close()
        assert service.wait("all") == 0, service.log("all")[-5_000:]
    assert service.count("deliveries", "leased") == 0

    service._start_what_is_missing()
    service.settle()
    assert differences(service, lives().listing) == []
    assert_the_books_are_right(service, received, lives())


def test_all_of_it_fits_into_250_megabytes(service: AllInOne) -> None:
    assert service.post(a_thousand_calls(6)) == [200] * 1_000
    service.settle()
    supervisor = psutil.Process(service.children("api")[0].ppid())
    family = [supervisor, *supervisor.children(recursive=True)]
    sizes = {part_of(each) or "supervisor": each.memory_full_info().pss / 1e6 for each in family}

    print("\n" + ", ".join(f"{name} {size:.0f} MB" for name, size in sizes.items()))
    assert len(sizes) == 3
    assert sum(sizes.values()) < 250


@pytest.fixture
def settings(migrated_database: MigratedDatabase) -> Iterator[dict[str, str]]:
    with migrated_database() as url:
        yield {"DATABASE_URL": url, "KRATOS_WEBHOOK_API_KEYS": KEY, "LOG_FORMAT": "json"}


@pytest.fixture
def processes(tmp_path: Path, settings: dict[str, str]) -> Iterator[Processes]:
    with Processes(tmp_path, settings) as processes:
        yield processes


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_pair()


def start(processes: Processes, port: int, **settings: str) -> None:
    processes.start(
        "all", "all", "--port", str(processes._port), METRICS_PORT=str(port), **settings
    )


def is_ready(processes: Processes, port: int) -> bool:
    return processes.run("healthcheck", "all", METRICS_PORT=str(port)) == (0, "ready\n")


def test_it_says_how_both_processes_are_and_what_waits_in_memory(
    processes: Processes, ports: tuple[int, int]
) -> None:
    start(processes, ports[0])
    until(lambda: is_ready(processes, ports[0]))

    code, said = processes.run("healthcheck", "worker", METRICS_PORT=str(ports[1]))
    assert (code, said.strip().endswith("answers the delivery, and not the worker")) == (1, True)
    scraped = [httpx.get(f"http://127.0.0.1:{port}/metrics").text for port in ports]
    assert ['process="api"' in text for text in scraped] == [True, False]
    for role in ("relay", "worker"):
        assert f'process="{role}"' in scraped[1]
    assert "kratos_sync_broker_up 1.0" in scraped[1]
    assert "kratos_sync_worker_threads_busy" in scraped[1]
    until(
        lambda: (
            "kratos_sync_broker_messages{" in httpx.get(f"http://127.0.0.1:{ports[1]}/metrics").text
        )
    )
    code, said = processes.run("status", METRICS_PORT=str(ports[0]))
    assert (code, "answers, messages waiting: none" in said) == (0, True)
    code, said = processes.run("status")
    assert (code, "in the memory of `kratos-sync all`" in said) == (0, True)


def test_it_can_be_started_at_once_after_its_supervisor_was_killed(
    processes: Processes, ports: tuple[int, int]
) -> None:
    start(processes, ports[0])
    until(lambda: is_ready(processes, ports[0]))
    left = psutil.Process(processes.pid_of("all")).children()
    psutil.Process(processes.pid_of("all")).kill()

    processes.start("another", "all", "--port", str(processes._port), METRICS_PORT=str(ports[0]))
    until(lambda: not any(child.is_running() for child in left))
    until(lambda: is_ready(processes, ports[0]))
    assert processes.stop("another") == {"another": 0}


def test_a_process_that_hangs_makes_all_of_it_not_ready(
    processes: Processes, ports: tuple[int, int]
) -> None:
    start(processes, ports[0])
    until(lambda: is_ready(processes, ports[0]))
    (delivery,) = [
        child
        for child in psutil.Process(processes.pid_of("all")).children()
        if part_of(child) == DELIVERY
    ]
    delivery.suspend()

    code, said = processes.run("healthcheck", "all", METRICS_PORT=str(ports[0]))
    delivery.resume()

    assert code == 1
    assert said.startswith(f"delivery no answer from port {ports[1]}")


def test_systemd_receives_from_one_process_and_nothing_of_a_replacement(
    processes: Processes, ports: tuple[int, int], tmp_path: Path
) -> None:
    with closing(Systemd(tmp_path / "notify", 0.4)) as systemd:
        start(processes, ports[0], **systemd.environment)
        assert systemd.receive() == "READY=1"
        until(lambda: is_ready(processes, ports[0]))
        for child in psutil.Process(processes.pid_of("all")).children():
            child.kill()

        assert set(systemd.receive_until("READY=1")) <= {"WATCHDOG=1", "READY=1"}
        assert systemd.receive() == "WATCHDOG=1"
        assert processes.stop("all") == {"all": 0}
        assert systemd.receive_until("STOPPING=1")[-1] == "STOPPING=1"


@pytest.mark.parametrize("command", ["relay", "worker"])
@pytest.mark.parametrize("given", [{}, {"BROKER_URL": "memory://"}])
def test_processes_that_would_not_share_a_broker_in_memory_are_refused(
    processes: Processes, command: str, given: dict[str, str]
) -> None:
    code, said = processes.run(command, **given)

    assert code == 2
    assert said.splitlines()[-1] == (
        "Error: A relay and a worker share a broker: set BROKER_URL to a Redis or a RabbitMQ."
        " Only `kratos-sync all` needs none."
    )


def test_a_port_that_is_taken_ends_all_of_it_with_one_line(processes: Processes) -> None:
    with socket.create_server(("127.0.0.1", processes._port)):
        processes.start("all", "all", "--port", str(processes._port))
        code = psutil.Process(processes.pid_of("all")).wait(60)

    assert code == 1
    assert "is taken or cannot be listened on: set --port." in processes.said("all")


def test_without_a_key_it_is_refused_at_once(processes: Processes) -> None:
    code, said = processes.run("all", KRATOS_WEBHOOK_API_KEYS="")

    assert code == 2
    assert "set KRATOS_WEBHOOK_API_KEYS" in said


def test_the_last_port_leaves_none_for_the_other_process(processes: Processes) -> None:
    code, said = processes.run("all", "--port", str(processes._port), METRICS_PORT="65535")

    assert code == 2
    assert "METRICS_PORT: the port after it is needed too, so choose another." in said


def test_it_reconciles_where_kratos_admin_api_is_known(processes: Processes) -> None:
    town = InMemoryDocuments()
    town.put(person())
    with AdminStandIn(town) as kratos:
        processes.start(
            "all",
            *("all", "--port", str(processes._port), "--every", "1min"),
            KRATOS_ADMIN_URL=kratos.url,
        )
        until(lambda: '"reconciled"' in processes.said("all"))
        processes.wait_for("all", '"repairs": 1')
        assert processes.stop("all") == {"all": 0}


def test_with_a_broker_other_workers_may_help(
    processes: Processes, broker_url: str, ports: tuple[int, int]
) -> None:
    start(processes, ports[0], BROKER_URL=broker_url)
    processes.start("worker", "worker", BROKER_URL=broker_url)
    processes.wait_for("worker", '"worker_started"')
    until(lambda: is_ready(processes, ports[0]))

    code, said = processes.run("status", BROKER_URL=broker_url)
    assert (code, "answers, messages waiting: none" in said) == (0, True)
    assert processes.stop("all", "worker") == {"all": 0, "worker": 0}
