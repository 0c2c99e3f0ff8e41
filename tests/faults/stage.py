"""Everything that runs while faults are done: servers, wires, the service's processes, Kratos."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import psycopg
from pydantic import SecretStr

from kratos_sync.infrastructure.application import subscriptions_with
from kratos_sync.infrastructure.ledger.subscriptions import PostgresSubscriptions
from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.postgres.engine import connect
from tests.faults.alerts import Prometheus, prometheus
from tests.faults.application import app
from tests.faults.disk import Disk, small_disk
from tests.faults.effects import CREATE
from tests.faults.keeper import Keeper, Kept
from tests.faults.kinds import ALL, Broker, processes_with
from tests.faults.kratos import Kratos
from tests.faults.processes import Part, ServiceProcess, with_parts
from tests.faults.servers import (
    CrashingBroker,
    CrashingPostgres,
    CrashingRabbitmq,
    CrashingValkey,
)
from tests.faults.service import DATABASE, KEY, service
from tests.faults.sizes import Size
from tests.faults.wires import Loop, Wire, tcp_server, unix_server
from tests.ports import free_pair, free_port, free_ports
from tests.servers.pgbouncer import Pgbouncer
from tests.waiting import until

STARTS_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Stage:
    """What faults are done to, and what watches over it."""

    folder: Path
    url: str
    disk: Disk
    postgres: CrashingPostgres
    broker: CrashingBroker | None
    """None, like its wire, with a broker in memory."""
    database_wires: Mapping[str, Wire]
    broker_wire: Wire | None
    processes: Mapping[str, ServiceProcess | Part]
    keepers: Mapping[str, Keeper]
    kratos: Kratos
    prometheus: Prometheus | None

    @property
    def troubles(self) -> Path:
        """The folder with a file for each event that has got its consumer into trouble."""
        return self.folder / "troubles"

    @property
    def elsewhere(self) -> Path:
        """The file of the effects outside the database."""
        return self.folder / "elsewhere"

    def clock_of(self, process: str) -> Path:
        """The file that says how far ahead the process' clock is."""
        return self.folder / f"{process}.clock"


@contextmanager
def set_stage(
    folder: Path, size: Size, seed: int, broker: Broker, *, pooled: bool = False
) -> Iterator[Stage]:
    """Start everything in the folder; end everything on leaving, however that comes.

    If `pooled`, a PgBouncer stands before PostgreSQL.
    """
    tidy(folder)
    with ExitStack() as undo:
        disk = undo.enter_context(small_disk(folder / "disk", size.disk_megabytes))
        postgres = CrashingPostgres(disk.folder / "postgresql", folder)
        undo.callback(postgres.keep_log)
        undo.enter_context(postgres)
        url = new_database(postgres.url)
        loop = undo.enter_context(Loop())
        connect_to = unix_server(postgres.socket)
        if pooled:
            pooler = undo.enter_context(Pgbouncer(folder / "pgbouncer", postgres.url))
            connect_to = tcp_server(pooler.port)
        names = processes_with(broker)
        database_wires = {name: Wire(loop, connect_to) for name in names}
        broker_url = running = broker_wire = None
        kept: dict[str, Kept] = {"database": postgres}
        ports = free_pair() if broker == "memory" else free_ports(len(names))
        if broker != "memory":
            kept["broker"] = running = undo.enter_context(_broker(broker, folder))
            broker_wire = Wire(loop, tcp_server(running.port))
            broker_url = running.url_at(broker_wire.port)
        port = free_port()
        metrics_ports = dict(zip(names, ports, strict=True))
        processes = undo.enter_context(
            service(folder, port, database_wires, broker_url, metrics_ports)
        )
        watching = None
        if size.watches_alerts:
            watching = undo.enter_context(prometheus(folder / "prometheus", metrics_ports))
        kept |= processes
        keepers = {name: undo.enter_context(Keeper(name, each)) for name, each in kept.items()}
        address = f"http://127.0.0.1:{port}"
        until(lambda: _is_ready(address), STARTS_SECONDS)
        if watching is not None:
            until(partial(watching.scrapes, len(metrics_ports)), STARTS_SECONDS)
        kratos = Kratos(loop, lambda: [address], KEY, seed)
        kratos.start(size.webhooks_per_second)
        yield Stage(
            folder,
            url,
            disk,
            postgres,
            running,
            database_wires,
            broker_wire,
            with_parts(processes[ALL], names) if broker == "memory" else processes,
            keepers,
            kratos,
            watching,
        )


def _broker(broker: Broker, folder: Path) -> CrashingValkey | CrashingRabbitmq:
    if broker == "rabbitmq":
        return CrashingRabbitmq(folder / "rabbitmq")
    return CrashingValkey(folder / "valkey", folder)


def tidy(folder: Path) -> None:
    """Leave nothing of an earlier run in the way."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "troubles", ignore_errors=True)
    (folder / "troubles").mkdir()
    for left in (*folder.glob("*.log"), *folder.glob("*.clock")):
        left.unlink()
    (folder / "elsewhere").write_text("")


def new_database(server: str) -> str:
    """Make a migrated database, with all subscriptions and the effects' table; give its URL."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {DATABASE}".encode())
    url = urlsplit(server)._replace(path=f"/{DATABASE}").geturl()
    engine = connect(SecretStr(url), pool_size=2)
    migrate(engine)
    # As `migrate` does, before the api records anything.
    PostgresSubscriptions(engine, subscriptions_with(app)).add_missing()
    engine.dispose()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CREATE.encode())
    return url


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
