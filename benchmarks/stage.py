"""The servers to measure on, and the service deployed on them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql
from pydantic import SecretStr

from benchmarks.commands import program
from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.postgres.engine import connect
from tests.end_to_end.service import Service
from tests.infrastructure.bus.servers import ReturningValkey
from tests.waiting import until

DEFAULT_LEASE_SECONDS = 30
POSTGRES_SETTINGS = {"shared_preload_libraries": "pg_stat_statements"}
"""PostgreSQL's defaults but for this: the statements are counted."""


class Deployment(Service):
    """The real commands with their defaults, each started when it is asked for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What was to be checked was checked: nobody need wait for them to end in order.
        self.kill(*self.pids())
        super().__exit__()

    def start_api(self) -> None:
        """Start the api, and wait until it answers that it is ready."""
        self.start("api", "api", "--port", self._port)
        until(self._answers, seconds=60)

    def start_workers(self, number: int = 1, change: str = "") -> None:
        """Start so many workers, and wait until they wait for messages."""
        names = [f"worker-{index + 1}" for index in range(number)]
        _at_once([partial(self.start, name, "worker", program=program(change)) for name in names])

    def start_relay(self, change: str = "") -> None:
        """Start the relay, and wait until it relays."""
        self.start("relay", "relay", program=program(change))

    def start_all(self) -> None:
        """Start one of each, and wait until all are ready."""
        _at_once([self.start_workers, self.start_relay, self.start_api])

    def start_without_broker(self, program: Sequence[str] | None = None) -> None:
        """Start `kratos-sync all` with a broker in memory, and wait until it delivers."""
        self.start("all", "all", "--port", self._port, program=program)

    @property
    def address(self) -> str:
        """Where the api listens."""
        return f"http://127.0.0.1:{self._port}"

    def pids(self) -> dict[str, int]:
        """The processes that run, by name."""
        return {name: process.pid for name, process in self._running.items()}


def _at_once(starts: Sequence[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(starts)) as threads:
        for started in [threads.submit(start) for start in starts]:
            started.result()


class Stage:
    """A PostgreSQL and a Valkey of our own; one deployment after the other runs on them."""

    kind: type[Deployment] = Deployment

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, valkey: ReturningValkey) -> None:
        self.folder = folder
        self.postgres = postgres
        self.valkey = valkey
        self._deployments = count(1)

    @contextmanager
    def deployed(self) -> Iterator[Deployment]:
        """Give the service with empty tables and an empty Valkey; nothing of it runs yet."""
        folder = self.folder / f"deployment-{next(self._deployments)}"
        folder.mkdir()
        url = self.postgres.url
        with self.kind(folder, url, self.valkey, DEFAULT_LEASE_SECONDS) as service:
            service.flush_redis()
            empty(url, "kratos_sync")
            yield service

    def server_pids(self) -> dict[str, int]:
        """The two servers' processes."""
        pids = {"postgres": self.postgres.pid, "valkey": self.valkey.pid}
        return {name: pid for name, pid in pids.items() if pid is not None}


@contextmanager
def raised(folder: Path, settings: Mapping[str, str] = POSTGRES_SETTINGS) -> Iterator[Stage]:
    """Start both servers in a folder, with the service's schema; end them."""
    with (
        EmbeddedPostgres(folder / "postgres", settings) as postgres,
        ReturningValkey(folder / "valkey") as valkey,
    ):
        engine = connect(SecretStr(postgres.url), pool_size=2)
        migrate(engine)
        engine.dispose()
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        yield Stage(folder, postgres, valkey)


def empty(url: str, schema: str) -> None:
    """Empty every table of the schema, and leave PostgreSQL nothing to catch up with."""
    with psycopg.connect(url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables"
            " WHERE schemaname = %s AND tablename <> 'alembic_version'",
            [schema],
        ).fetchall()
        names = sql.SQL(", ").join(sql.Identifier(schema, name) for (name,) in tables)
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(names))
        connection.execute("CHECKPOINT")
