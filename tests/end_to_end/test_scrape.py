"""What a scrape of each process gives, while the service runs and while what it needs is away."""

import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability.definitions import METRICS, PROCESSES, Metric
from kratos_sync.infrastructure.postgres.engine import connect
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.end_to_end import troublemaker
from tests.end_to_end.canaries import Search
from tests.end_to_end.observed import Scrape, scrape
from tests.end_to_end.processes import KRATOS_SYNC, Processes
from tests.infrastructure.bus.servers import ReturningValkey
from tests.infrastructure.servers_postgres import ReturningPostgres
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.ports import free_port
from tests.waiting import until

SYNC, PARSE = "/kratos/sync-identity", "/kratos/parse-identity"
KEY = "a-key-of-no-worth"
HOOK = "after registration"
PROGRAM = (sys.executable, str(Path(troublemaker.__file__)))
TROUBLE = troublemaker.GetIntoTrouble.name
CANARIES = {
    "an address": "zoe.canary@mail.test",
    "a name": "Zoë Ünïcanary",
    "a trait": "canary_of_a_trait",
    "a hook's label": "hook-of-canary@mail.test",
    "a wrong key": "wr0ng-canary-key",
    "a path": "pathC4nary",
}


@dataclass
class Observed:
    """The service with a port for metrics each."""

    processes: Processes
    ports: dict[str, int]
    postgres: ReturningPostgres
    valkey: ReturningValkey
    kratos: AdminStandIn

    def start(self, name: str, *options: str) -> None:
        settings = {"METRICS_PORT": str(self.ports[name])}
        if name == "api":
            self.processes.start_api(PROGRAM, **settings)
        else:
            self.processes.start(name, name, *options, program=PROGRAM, **settings)

    def scrape(self, name: str) -> Scrape:
        return scrape(self.ports[name])

    def post(self, body: Any, path: str = SYNC, key: str = KEY, hook: str = HOOK) -> int:
        headers = {"X-Api-Key": key, "X-Kratos-Hook": hook}
        return self.processes.http.post(path, json=body, headers=headers).status_code

    def send_change(self, trouble: str = "", **fields: Any) -> str:
        """Let a person change, and a consumer get into trouble by it; give the person's id."""
        traits = {"email": CANARIES["an address"], "name": CANARIES["a name"], "trouble": trouble}
        traits |= {CANARIES["a trait"]: CANARIES["a trait"]}
        changed = person(traits=traits, **fields)
        assert self.post({"identity": changed}) == 200
        return str(changed["id"])

    def until(self, name: str, metric: Metric, least: float, *labels: str) -> None:
        """Wait until a process exports a value of at least that."""
        until(lambda: (self.scrape(name).value(metric, *labels) or 0) >= least)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    ports = {name: free_port() for name in PROCESSES}
    with (
        ReturningPostgres(folder / "postgres") as postgres,
        ReturningValkey(folder / "valkey") as valkey,
        AdminStandIn(InMemoryDocuments([person()])) as kratos,
    ):
        engine = connect(SecretStr(postgres.url), pool_size=2)
        migrate(engine)
        engine.dispose()
        settings = {
            "DATABASE_URL": postgres.url,
            "BROKER_URL": valkey.url,
            "KRATOS_WEBHOOK_API_KEYS": KEY,
            "KRATOS_ADMIN_URL": kratos.url,
            "LEASE_SECONDS": "5",
        }
        with Processes(folder, settings) as processes:
            service = Observed(processes, ports, postgres, valkey, kratos)
            service.start("reconcile", "--every", "1h")
            service.start("console", "--link", "--port", str(free_port()))
            for name in ("worker", "relay", "api"):
                service.start(name)
            for name in PROCESSES:
                until(lambda name=name: service.scrape(name).value(define.LEDGER_UP) == 1)
            for name in ("worker", "relay"):
                service.until(name, define.BROKER_UP, 1)
            # While nobody is held here who is not in Kratos.
            service.until("relay", define.RECONCILED, 1)
            yield service


def test_each_metric_is_exported_by_the_processes_of_its_definition(service: Observed) -> None:
    for process in PROCESSES:
        scraped = service.scrape(process)
        exported = {metric.name for metric in METRICS if scraped.has(metric)}
        assert exported == {each.name for each in METRICS if process in each.processes}


def test_every_process_says_what_it_is(service: Observed) -> None:
    for process in PROCESSES:
        ((version, name),) = service.scrape(process).values(define.BUILD)
        assert name == process
        assert version.count(".") == 2
        assert "process_resident_memory_bytes" in service.scrape(process).text


def test_webhooks_count_by_endpoint_and_result(service: Observed) -> None:
    def count(result: str, endpoint: str = "sync-identity") -> float:
        return service.scrape("api").value(define.WEBHOOKS, endpoint, result) or 0

    before = {result: count(result) for result in define.RESULTS}
    service.send_change()
    assert service.post({"identity": {}}) == 422
    assert service.post({}, key=CANARIES["a wrong key"]) == 403
    assert service.post("x" * 2_000_000) == 413
    assert service.post({"identity": person()}, path=PARSE) == 200
    for result in ("accepted", "invalid", "unauthorized", "too_large"):
        assert count(result) == before[result] + 1
    assert count("accepted", "parse-identity") == 1
    assert service.scrape("api").values(define.EVENTS_PER_COMMIT, "_count")[()] >= 1
    assert service.scrape("api").value(define.HELD) == 0
    assert service.scrape("api").value(define.CONNECTIONS) is not None
    assert service.scrape("api").value(define.LOOP_AGE) is not None


def test_a_repeated_webhook_is_a_duplicate(service: Observed) -> None:
    headers = {"X-Api-Key": KEY, "Ory-Webhook-Trigger-ID": "6f8c9f4e-1f7c-4c06-8a8e-7f3c0f0e8f5b"}
    body = {"identity": person()}
    for _ in range(2):
        assert service.processes.http.post(SYNC, json=body, headers=headers).status_code == 200
    assert service.scrape("api").value(define.WEBHOOKS, "sync-identity", "duplicate") == 1


def test_attempts_count_by_outcome_and_type_of_error(service: Observed) -> None:
    service.send_change("raise once")
    service.send_change("final")
    service.send_change("later once")
    for outcome in define.OUTCOMES:
        service.until("worker", define.ATTEMPTS, 1, TROUBLE, outcome)
    worker = service.scrape("worker")
    failures = worker.values(define.FAILURES)
    assert failures[TROUBLE, "ValueError"] >= 1
    assert failures[TROUBLE, "KeyError"] >= 1
    for metric in (define.BATCH_SIZE, define.BATCH_DURATION, define.LATENCY):
        assert worker.values(metric, "_count")[TROUBLE,] >= 1
    assert worker.value(define.THREADS_BUSY) is not None
    assert worker.value(define.BROKER_UP) == 1


def test_the_relay_counts_what_it_dispatches_and_shows_the_ledger(service: Observed) -> None:
    service.send_change("final")
    service.until("relay", define.DISPATCHED, 1, TROUBLE)
    service.until("relay", define.DELIVERIES, 1, TROUBLE, "dead")
    service.until("relay", define.HOOK_SEEN, 1, HOOK)
    service.until("relay", define.RECONCILED, 1)
    relay = service.scrape("relay")
    assert [metric.name for metric in define.LEDGER if not relay.values(metric)] == []
    assert relay.value(define.KNOWN, "SyncKratosIdentity") == 1
    assert relay.value(define.BROKER_MESSAGES, TROUBLE) is not None


def test_a_reconciliation_counts_its_requests_and_shows_what_it_repaired(
    service: Observed,
) -> None:
    service.until("reconcile", define.KRATOS_REQUESTS, 1, "page", "200")
    assert service.scrape("reconcile").values(define.KRATOS_DURATION, "_count")["page",] >= 1
    assert service.scrape("reconcile").value(define.CIRCUIT_OPEN) == 0
    service.until("relay", define.RECONCILED, 1)
    assert (service.scrape("relay").value(define.REPAIRED, "missing") or 0) >= 1
    assert service.scrape("relay").value(define.REFUSED) == 0


@pytest.mark.parametrize(
    ("trouble", "reason"), [("exit", "crashed"), ("kill", "killed"), ("sleep", "hung")]
)
def test_a_worker_that_is_replaced_leaves_its_port_to_the_next_and_is_counted(
    service: Observed, trouble: str, reason: str
) -> None:
    before = service.scrape("worker").values(define.REPLACED)
    service.send_change(f"{trouble} once")
    service.until("worker", define.REPLACED, before[reason,] + 1, reason)
    after = service.scrape("worker").values(define.REPLACED)
    assert {labels for labels in after if after[labels] != before[labels]} == {(reason,)}
    if reason != "hung":
        service.until("worker", define.FAILURES, 1, TROUBLE, "WorkerDied")


def test_another_relay_exports_the_ledger_when_the_first_is_gone(service: Observed) -> None:
    service.until("relay", define.LEDGER_READ, 1)
    service.ports["relay-2"] = free_port()
    settings = {"METRICS_PORT": str(service.ports["relay-2"])}
    service.processes.start("relay-2", "relay", program=PROGRAM, **settings)
    until(lambda: service.scrape("relay-2").value(define.LEDGER_UP) == 1)
    assert not service.scrape("relay-2").values(define.LEDGER_READ)
    service.processes.stop("relay")
    service.until("relay-2", define.LEDGER_READ, 1)
    service.start("relay")
    until(lambda: service.scrape("relay").value(define.LEDGER_UP) == 1)
    assert not service.scrape("relay").values(define.LEDGER_READ)
    service.processes.stop("relay-2")
    service.until("relay", define.LEDGER_READ, 1)


def test_while_postgresql_is_away_that_shows_and_no_stale_value_does(service: Observed) -> None:
    service.until("relay", define.LEDGER_READ, 1)
    outages = {name: service.scrape(name).value(define.LEDGER_OUTAGES) or 0 for name in PROCESSES}
    service.postgres.go_away()
    for name in PROCESSES:
        until(lambda name=name: service.scrape(name).value(define.LEDGER_UP) == 0)
    until(lambda: not any(service.scrape("relay").values(metric) for metric in define.LEDGER))
    service.postgres.come_back()
    for name in PROCESSES:
        until(lambda name=name: service.scrape(name).value(define.LEDGER_UP) == 1)
        assert (service.scrape(name).value(define.LEDGER_OUTAGES) or 0) > outages[name]
    service.until("relay", define.LEDGER_READ, 1)


def test_while_the_broker_is_away_that_shows(service: Observed) -> None:
    service.valkey.go_away()
    for name in ("relay", "worker"):
        until(lambda name=name: service.scrape(name).value(define.BROKER_UP) == 0)
    service.valkey.come_back()
    for name in ("relay", "worker"):
        until(lambda name=name: service.scrape(name).value(define.BROKER_UP) == 1)
        assert (service.scrape(name).value(define.BROKER_OUTAGES) or 0) >= 1


def test_no_label_says_who_somebody_is_or_what_is_secret(service: Observed) -> None:
    ids = [service.send_change(), service.send_change("raise once"), service.send_change("final")]
    service.post({"identity": person()}, hook=CANARIES["a hook's label"])
    service.post({}, path=f"/{CANARIES['a path']}")
    read_at = service.scrape("relay").value(define.LEDGER_READ) or 0
    service.until("relay", define.LEDGER_READ, read_at + 1)
    service.until("relay", define.HOOK_SEEN, 1, "other")
    secrets = {
        "the key": KEY,
        "the database": service.postgres.url,
        "the broker": service.valkey.url,
    }
    people = {f"person {number}": name for number, name in enumerate(ids)}
    search = Search({**CANARIES, **secrets, **people})
    places = {name: service.scrape(name).text for name in PROCESSES}
    assert all(places.values())
    assert search.found_in(places) == []
    assert search.found_in({"a label": f'x{{hook="{CANARIES["an address"]}"}} 1'})


def test_a_taken_port_is_one_line(service: Observed) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = service.processes.run("relay", program=KRATOS_SYNC, METRICS_PORT=str(port))
    assert code == 1
    assert said == (
        f"Error: Cannot listen on 127.0.0.1, port {port} (Address already in use):"
        " choose another METRICS_PORT or METRICS_HOST.\n"
    )
