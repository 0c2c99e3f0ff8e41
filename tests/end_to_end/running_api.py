"""The API alone, as a process, with a real PostgreSQL behind it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import psutil
import psycopg
from psycopg.rows import dict_row

from tests.end_to_end.processes import KRATOS_SYNC, Processes
from tests.end_to_end.wire import KEY, Answer, Wire, call, identity


class RunningApi:
    """The process, what it says, and the ledger that it writes."""

    def __init__(self, processes: Processes, database_url: str) -> None:
        self.processes = processes
        self.port: int = processes.http.base_url.port or 0
        self.database = psycopg.connect(database_url, autocommit=True, row_factory=dict_row)

    @classmethod
    @contextmanager
    def started(
        cls,
        folder: Path,
        database_url: str,
        program: Sequence[str] = KRATOS_SYNC,
        **settings: str,
    ) -> Iterator[Self]:
        """Start it; whatever is sent to it, it must not fail by any fault of its own."""
        given = {
            "DATABASE_URL": database_url,
            "BROKER_URL": "redis://127.0.0.1:1/0",
            "KRATOS_WEBHOOK_API_KEYS": KEY,
            "LOG_FORMAT": "json",
            **settings,
        }
        with Processes(folder, given) as processes:
            processes.start_api(program)
            running = cls(processes, database_url)
            with running.database:
                yield running
            assert processes.stop("api") == {"api": 0}
            said = [line["event"] for line in running.log()]
            assert not [line for line in said if line == "webhook_failed" or "Exception" in line]

    def wire(self) -> Wire:
        return Wire(self.port)

    def ask(self, *chunks: bytes) -> Answer:
        with self.wire() as wire:
            return wire.send(*chunks).answer()

    def takes_webhooks(self) -> bool:
        return self.ask(call(identity())).status == 200

    def events_of(self, person: UUID) -> list[dict[str, Any]]:
        statement = "SELECT payload::text FROM kratos_sync.events WHERE subject = %s ORDER BY id"
        return [json.loads(row["payload"]) for row in self.database.execute(statement, [person])]

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.processes.said("api").splitlines()]

    @property
    def process(self) -> psutil.Process:
        (pid,) = self.processes.pids()
        return psutil.Process(pid)
