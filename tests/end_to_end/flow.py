"""The whole service in one run, and all that was written and answered on the way."""

import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from tests.end_to_end.guarded_servers import GuardedPostgres, GuardedValkey
from tests.end_to_end.observed import scrape
from tests.end_to_end.planted import SECRETS
from tests.end_to_end.processes import Processes
from tests.ports import free_port
from tests.waiting import until

QUOTING = (sys.executable, str(Path(__file__).with_name("quoting.py")))
ROLE = "kratos"


@dataclass
class Flow:
    """One run of everything, and all that was written and answered on the way."""

    level: str
    postgres: GuardedPostgres
    valkey: GuardedValkey
    processes: Processes
    database: str
    database_url: str
    said: dict[str, bytes | str] = field(default_factory=dict)
    at_the_broker: dict[str, bytes | str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    reported: set[str] = field(default_factory=set)
    """What was reported to Sentry."""
    metrics_ports: dict[str, int] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a process, with metrics."""
        port = self.metrics_ports[name] = free_port()
        settings = {"METRICS_PORT": str(port)}
        if name == "api":
            self.processes.start_api(program=QUOTING, **settings)
        else:
            self.processes.start(name, name, program=QUOTING, **settings)

    def ask(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        return self.postgres.execute(statement, *parameters, database=self.database)

    def count(self, rows: str, *parameters: object) -> int:
        ((count,),) = self.ask(f"SELECT count(*) FROM kratos_sync.{rows}", *parameters)
        assert isinstance(count, int)
        return count

    def post(self, path: str, body: bytes, **headers: str) -> int:
        key = {"X-Api-Key": SECRETS["the new key"], "Content-Type": "application/json"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.call("POST", path, {**key, **named}, body)

    def call(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> int:
        answer = until(lambda: self._answer(method, path, headers, body))
        assert answer is not None
        name = f"answer {len(self.statuses) + 1}, {answer.status_code}"
        self.said[name] = f"{answer.headers.raw} {answer.reason_phrase}\n".encode() + answer.content
        self.statuses.append(answer.status_code)
        return answer.status_code

    def _answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> httpx.Response | None:
        """None where it was cut off, as it may be of a call answered before it was read."""
        encoded = {name: value.encode() for name, value in headers.items()}
        with suppress(httpx.TransportError):
            return self.processes.http.request(method, path, content=body, headers=encoded)
        return None

    def run(self, *command: str, code: int = 0, **settings: str) -> None:
        exited, said = self.processes.run(*command, program=QUOTING, **settings)
        self.said[f"{' '.join(command)} ({len(self.said)})"] = said
        assert exited == code, said

    def settle(self) -> None:
        until(lambda: self.count("deliveries WHERE failed_at IS NULL AND attempts = 0") == 0)

    def look_around(self) -> None:
        """See what shows of the processes while they run."""
        number = len(self.said)
        for name, port in self.metrics_ports.items():
            scraped = until(lambda port=port: scrape(port).text)
            self.said[f"metrics of {name} ({number})"] = scraped
        for pid in self.processes.pids():
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            self.said[f"arguments of {pid} ({number})"] = "\n".join(
                f"{each.name()} {each.cmdline()}" for each in family
            )
        activity = "SELECT application_name, query FROM pg_stat_activity WHERE usename = %s"
        self.said[f"pg_stat_activity ({number})"] = repr(self.ask(activity, ROLE))
        for key, value in self.valkey.held().items():
            self.at_the_broker[f"Valkey's {key} ({number})"] = value


def logs_in(folder: Path) -> dict[str, bytes]:
    """What processes that have ended wrote."""
    return {file.name: file.read_bytes() for file in folder.rglob("*")}
