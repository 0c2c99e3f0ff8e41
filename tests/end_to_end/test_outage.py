"""PostgreSQL goes away under steady webhooks, and comes back: nothing is lost."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.end_to_end.processes import Processes
from tests.end_to_end.steady_sender import SteadySender
from tests.end_to_end.wire import KEY, Wire, call, head, identity
from tests.infrastructure.servers_postgres import ReturningPostgres
from tests.waiting import DEADLINE_SECONDS, until

AWAY_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "10"))
RATE = float(os.environ.get("OUTAGE_RATE", "20"))
BEFORE_AND_AFTER_SECONDS = 2


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each test's PostgreSQL begins with."""
    from pydantic import SecretStr

    from kratos_sync.infrastructure.embedded import EmbeddedPostgres
    from kratos_sync.infrastructure.migrations import migrate
    from kratos_sync.infrastructure.postgres.engine import connect

    folder = tmp_path_factory.mktemp("migrated")
    with EmbeddedPostgres(folder) as server:
        engine = connect(SecretStr(server.url), pool_size=2)
        migrate(engine)
        engine.dispose()
    return folder


@pytest.fixture
def postgres(tmp_path: Path, migrated: Path) -> Iterator[ReturningPostgres]:
    with ReturningPostgres(tmp_path / "postgres", copied_from=migrated) as server:
        yield server


class Sending:
    """A sender in a thread of its own, while the test looks after the servers."""

    def __init__(self, port: int, rate: float = RATE) -> None:
        self.sender = SteadySender(port, rate)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self.sender.send(self._stop))
        finally:
            self._loop.close()

    def start(self) -> SteadySender:
        self._thread.start()
        return self.sender

    def finish(self) -> None:
        """Let it begin no more calls, and wait until each it began has ended."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()


def test_an_outage_under_steady_webhooks_loses_nothing(
    postgres: ReturningPostgres, broker_url: str, tmp_path: Path
) -> None:
    settings = {
        "DATABASE_URL": postgres.url,
        "BROKER_URL": broker_url,
        "KRATOS_WEBHOOK_API_KEYS": KEY,
        "LOG_FORMAT": "json",
    }
    with Processes(tmp_path, settings) as processes:
        processes.start_api()
        processes.start("relay", "relay")
        processes.start("worker", "worker")
        processes.wait_for("worker", "worker_started")
        sending = Sending(processes.http.base_url.port or 0)
        sender = sending.start()
        pause = threading.Event()
        until(lambda: len(sender.accepted) >= BEFORE_AND_AFTER_SECONDS * RATE)
        postgres.go_away()
        back_at = time.monotonic() + AWAY_SECONDS
        answers, slowest = set(), 0.0
        while time.monotonic() < back_at:
            began = time.monotonic()
            answers.add(processes.http.get("/health/live").status_code)
            answers.add(processes.http.get("/openapi.json").status_code)
            slowest = max(slowest, time.monotonic() - began)
            pause.wait(0.5)
        assert answers == {200}
        assert processes.http.get("/health/ready").status_code == 503
        held, memory = sender.under_way, memory_of(processes)
        postgres.come_back()
        accepted = len(sender.accepted)
        until(lambda: len(sender.accepted) >= accepted + held + BEFORE_AND_AFTER_SECONDS * RATE)
        sending.finish()
        print(
            f"{RATE:.0f}/s, away {AWAY_SECONDS:.0f} s: accepted {len(sender.accepted)},"
            f" lost {len(sender.lost)}, most under way {sender.most_under_way},"
            f" longest {sender.longest:.1f} s, answers {sender.answers}, rss {memory / 1e6:.0f} MB,"
            f" slowest live {slowest * 1e3:.0f} ms"
        )
        assert sender.lost == {}
        assert held >= 0.9 * RATE * AWAY_SECONDS
        assert_each_is_one_event_and_delivered_once(postgres.url, sender)
        assert processes.stop("api", "relay", "worker") == {"api": 0, "relay": 0, "worker": 0}


def memory_of(processes: Processes) -> int:
    import psutil

    rss: int = psutil.Process(processes.pids()[0]).memory_info().rss
    return rss


def assert_each_is_one_event_and_delivered_once(url: str, sender: SteadySender) -> None:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as database:

        def ask(statement: str) -> list[dict[str, Any]]:
            return database.execute(statement.encode()).fetchall()

        until(lambda: not ask("SELECT FROM kratos_sync.deliveries LIMIT 1"))
        events = ask(
            "SELECT subject FROM kratos_sync.events WHERE name = 'kratos_identity.updated'"
        )
        assert sorted(row["subject"] for row in events) == sorted(sender.accepted)
        attempts = ask(
            "SELECT consumer, outcome, number, count(*) AS attempts,"
            " count(DISTINCT event_id) AS events FROM kratos_sync.attempts GROUP BY 1, 2, 3"
        )
        accepted = len(sender.accepted)
        (ours,) = [row for row in attempts if row["consumer"] == "SyncKratosIdentity"]
        assert list(ours.values())[1:] == ["succeeded", 1, accepted, accepted]
        stored = ask("SELECT count(*) AS people FROM kratos_sync.kratos_identities")
        assert stored == [{"people": accepted}]


def started(folder: Path, url: str) -> Processes:
    settings = {"DATABASE_URL": url, "BROKER_URL": "redis://127.0.0.1:1/0", "LOG_FORMAT": "json"}
    return Processes(folder, {**settings, "KRATOS_WEBHOOK_API_KEYS": KEY})


def is_alive(processes: Processes) -> bool:
    import httpx

    try:
        return processes.http.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False


def test_the_api_starts_while_postgresql_is_away_and_holds_calls(
    postgres: ReturningPostgres, tmp_path: Path
) -> None:
    postgres.go_away()
    with started(tmp_path, postgres.url) as processes:
        port = processes.http.base_url.port or 0
        processes.start("api", "api", "--port", str(port))
        until(lambda: is_alive(processes))
        assert '"event": "ledger_unavailable"' in processes.said("api")
        assert processes.http.get("/health/ready").status_code == 503
        with Wire(port) as wire:
            wire.send(call(identity()))
            processes.wait_for("api", "webhook_waiting")
            postgres.come_back()
            assert wire.answer().status == 200
        until(lambda: processes.http.get("/health/ready").status_code == 200)
        assert processes.stop("api") == {"api": 0}


def test_a_worker_that_waits_for_postgresql_stops_when_asked(
    postgres: ReturningPostgres, tmp_path: Path
) -> None:
    postgres.go_away()
    with started(tmp_path, postgres.url) as processes:
        processes.start("worker", "worker")
        processes.wait_for("worker", "ledger_unavailable")
        assert processes.stop("worker") == {"worker": 0}
        postgres.come_back()


@pytest.mark.parametrize("is_away_at_first", [True, False])
def test_the_api_holds_calls_until_a_database_is_migrated(
    postgres: ReturningPostgres, tmp_path: Path, is_away_at_first: bool
) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as administrator:
        administrator.execute("ALTER SCHEMA kratos_sync RENAME TO elsewhere")
    if is_away_at_first:
        postgres.go_away()
    with started(tmp_path, postgres.url) as processes:
        port = processes.http.base_url.port or 0
        processes.start("api", "api", "--port", str(port))
        until(lambda: is_alive(processes))
        if is_away_at_first:
            postgres.come_back()
        else:
            assert '"event": "schema_too_old"' in processes.said("api")
        assert processes.http.get("/health/ready").status_code == 503
        with Wire(port) as wire:
            wire.send(call(identity()))
            processes.wait_for("api", "webhook_waiting")
            with psycopg.connect(postgres.url, autocommit=True) as administrator:
                administrator.execute("ALTER SCHEMA elsewhere RENAME TO kratos_sync")
            assert wire.answer().status == 200
        assert processes.stop("api") == {"api": 0}


RECORDING = "ON FUNCTION kratos_sync.record_webhook_events"


def test_the_api_holds_calls_until_a_role_may_write_again(
    postgres: ReturningPostgres, tmp_path: Path
) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as administrator:
        administrator.execute("CREATE ROLE api LOGIN")
        administrator.execute("GRANT USAGE ON SCHEMA kratos_sync TO api")
        administrator.execute("GRANT ALL ON ALL TABLES IN SCHEMA kratos_sync TO api")
        administrator.execute(f"GRANT EXECUTE {RECORDING} TO api")
    with started(tmp_path, postgres.url.replace("postgres@", "api@")) as processes:
        processes.start_api()
        with Wire(processes.http.base_url.port or 0) as wire:
            with psycopg.connect(postgres.url, autocommit=True) as administrator:
                administrator.execute(f"REVOKE EXECUTE {RECORDING} FROM api")
                wire.send(call(identity()))
                processes.wait_for("api", "SQLSTATE 42501")
                administrator.execute(f"GRANT EXECUTE {RECORDING} TO api")
            assert wire.answer().status == 200


def test_the_api_does_not_start_on_a_database_that_waiting_will_not_mend(
    postgres: ReturningPostgres, tmp_path: Path
) -> None:
    with started(tmp_path, postgres.url.replace("/postgres?", "/none?")) as processes:
        code, said = processes.run("api", "--port", "0")
    assert code == 1
    assert "there is no such database (SQLSTATE 3D000)" in said.splitlines()[-1]
    assert len(said.splitlines()) == 1


def test_a_stop_in_order_answers_what_is_held(postgres: ReturningPostgres, tmp_path: Path) -> None:
    with started(tmp_path, postgres.url) as processes:
        processes.start_api()
        port = processes.http.base_url.port or 0
        postgres.go_away()
        with Wire(port) as held, Wire(port) as idle, Wire(port) as begun:
            held.send(call(identity()))
            begun.send(head("Content-Length: 100"))
            processes.wait_for("api", "webhook_waiting")
            os.kill(*processes.pids(), SIGTERM)
            assert idle.is_ended()
            until(lambda: not listens(port))
            postgres.come_back()
            answer = held.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert held.is_ended()
            assert begun.answer().status == 408
        assert ended(processes) == 0


def test_a_second_signal_answers_at_once_that_the_ledger_is_away(
    postgres: ReturningPostgres, tmp_path: Path
) -> None:
    with started(tmp_path, postgres.url) as processes:
        processes.start_api()
        port = processes.http.base_url.port or 0
        postgres.go_away()
        with Wire(port) as held, Wire(port) as begun:
            held.send(call(identity()))
            begun.send(head("Content-Length: 100"))
            processes.wait_for("api", "webhook_waiting")
            os.kill(*processes.pids(), SIGTERM)
            until(lambda: not listens(port))
            began = time.monotonic()
            os.kill(*processes.pids(), SIGTERM)
            assert held.answer().status == 503
            assert time.monotonic() - began < 15  # it would be held for ten seconds longer
            assert begun.is_ended()
            assert ended(processes) == 0
        assert "webhook_failed" not in processes.said("api")
        assert "Exception" not in processes.said("api")


def ended(processes: Processes) -> int:
    """Wait for the API, which was asked to end, and give its exit code."""
    return processes._running.pop("api").wait(DEADLINE_SECONDS)


def listens(port: int) -> bool:
    try:
        Wire(port).close()
    except ConnectionRefusedError:
        return False
    return True
