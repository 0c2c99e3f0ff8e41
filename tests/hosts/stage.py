"""All hosts with what runs on them: the service, its servers, and Kratos."""

import asyncio
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final

import httpx

from kratos_sync.infrastructure.observability.definitions import LEDGER_READ
from tests.faults.kratos import Kratos
from tests.faults.processes import ServiceProcess, ServiceProcesses, signal_all
from tests.faults.service import DATABASE, KEY, clock_of, environment
from tests.faults.stage import STARTS_SECONDS, new_database, tidy
from tests.faults.wires import Loop
from tests.hosts.load_balancer import LoadBalancer
from tests.hosts.network import Network
from tests.hosts.servers import HostPostgres, HostValkey
from tests.kratos.admin_stand_in import AdminStandIn
from tests.waiting import until

POSTGRESQL, BROKER, KRATOS = "postgresql", "broker", "kratos"
APIS: Final = ("api-1", "api-2")
RELAYS: Final = ("relay-1", "relay-2")
WORKERS: Final = ("worker-1", "worker-2", "worker-3", "worker-4")
SERVICE: Final = (*APIS, *RELAYS, *WORKERS)
ALL: Final = (*SERVICE, POSTGRESQL, BROKER, KRATOS)
HTTP_PORT: Final = 8000
METRICS_PORT: Final = 9000
EXPORTED: Final = re.compile(rf"^\w*{LEDGER_READ.name} ", re.MULTILINE)


@dataclass(frozen=True)
class Stage:
    """What faults are done to, and what looks at it from outside."""

    folder: Path
    network: Network
    url: str
    """The database's, past the network."""
    processes: Mapping[str, ServiceProcess]
    kratos: Kratos

    @property
    def elsewhere(self) -> Path:
        """The file of the effects outside the database."""
        return self.folder / "elsewhere"

    def lose(self, name: str) -> None:
        """Let a host of the service disappear, with all that ran on it."""
        self.network.disconnect(name)
        signal_all(self.processes[name].tree(), SIGKILL)
        until(lambda: not self.processes[name].is_alive())

    def bring_back(self, name: str) -> None:
        """Start the host again, and what runs on it."""
        self.network.connect(name)
        self.processes[name].start()

    def set_clock(self, name: str, ahead: float) -> None:
        """Set how far the clock of a host is ahead."""
        (self.folder / f"{name}.clock").write_text(str(ahead))

    def exporting(self) -> list[str]:
        """The relays that export the ledger's metrics; there should be one, whichever."""
        return [name for name in RELAYS if EXPORTED.search(self._metrics_of(name))]

    def _metrics_of(self, name: str) -> str:
        there = self.network.hosts[name]
        with suppress(httpx.TransportError), self.network.hosts[KRATOS].there.entered():
            metrics = f"http://{there.address}:{METRICS_PORT}/metrics"
            return httpx.get(metrics, timeout=1, trust_env=False).text
        return ""

    def compare(self) -> dict[str, Any]:
        """Compare Kratos' identities with ours, by a command on a worker's host."""
        printed = self.processes[WORKERS[0]].run("reconcile", "--dry-run", "--json")
        found: dict[str, Any] = json.loads(printed)
        return found


@contextmanager
def set_stage(folder: Path, per_second: float, seed: int) -> Iterator[Stage]:
    """Start everything; end everything and remove all hosts on leaving, however that comes."""
    tidy(folder)
    with ExitStack() as undo:
        network = undo.enter_context(Network(ALL))
        hosts = network.hosts
        for data in ("postgresql", "valkey"):
            shutil.rmtree(folder / data, ignore_errors=True)
        database = undo.enter_context(HostPostgres(folder / "postgresql", hosts[POSTGRESQL]))
        broker = undo.enter_context(HostValkey(folder / "valkey", hosts[BROKER]))
        url = new_database(database.url)
        loop = undo.enter_context(Loop())
        loop.run(_enter(network))
        apis = [f"http://{hosts[name].address}:{HTTP_PORT}" for name in APIS]
        balancer = LoadBalancer(apis)
        kratos = Kratos(loop, balancer.route, KEY, seed)
        with hosts[KRATOS].there.entered():
            admin = AdminStandIn(kratos.identities, address=hosts[KRATOS].address)
        undo.enter_context(admin)
        addresses = {
            "DATABASE_URL": f"postgresql://postgres@{database.address}/{DATABASE}",
            "BROKER_URL": broker.url,
            "KRATOS_ADMIN_URL": admin.url,
            "METRICS_HOST": "0.0.0.0",
            "METRICS_PORT": str(METRICS_PORT),
        }
        processes = undo.enter_context(_service(folder, network, addresses))
        stage = Stage(folder, network, url, processes, kratos)
        for process in processes.values():
            process.start()
        asyncio.run_coroutine_threadsafe(balancer.watch(), loop.loop)
        until(lambda: balancer.ready == set(apis), STARTS_SECONDS)
        until(stage.exporting, STARTS_SECONDS)
        kratos.start(per_second)
        yield stage


async def _enter(network: Network) -> None:
    """Let Kratos' calls come from its host."""
    network.hosts[KRATOS].there.enter()


@contextmanager
def _service(
    folder: Path, network: Network, addresses: Mapping[str, str]
) -> Iterator[dict[str, ServiceProcess]]:
    with ServiceProcesses(folder) as processes:
        for name in SERVICE:
            command = [name.partition("-")[0]]
            if name in APIS:
                command += ["--host", "0.0.0.0", "--port", str(HTTP_PORT)]
            own = {**environment(folder), **addresses, **clock_of(folder, name)}
            processes.add(name, command, own, network.hosts[name].there.command)
        yield processes.by_name
