"""A real Prometheus beside the suite, with the rules that are deployed: which alert a fault raises.

The windows of the rules are shortened, so that an alert of one fault has ended before the next.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import yaml

from tests.ports import free_port
from tests.waiting import until

RULES: Final = Path(__file__).parents[2] / "deploy/monitoring/alerts.yaml"
WINDOW: Final = "15s"
SCRAPE_SECONDS: Final = 1
LONG_ENOUGH: Final = "5s"
STARTS_SECONDS: Final = 30.0
LONGEST_ALERT_SECONDS: Final = 60.0
"""So soon after its beginning a fault has raised its alert."""
GAP_SECONDS: Final = 3.0
"""Samples further apart than this belong to two alerts."""

RESTARTED, DOWN = "KratosSyncProcessRestarted", "KratosSyncProcessDown"
REPLACED, FAILED = "KratosSyncWorkerReplaced", "KratosSyncAttemptsFailed"
LEDGER = ("KratosSyncLedgerDown", "KratosSyncLedgerOutages", "KratosSyncWebhooksHeld")
BROKER = ("KratosSyncBrokerDown", "KratosSyncBrokerOutages")

EXPECTED: Final[Mapping[str, tuple[str, ...] | str]] = {
    "api killed": (RESTARTED,),
    "relay killed": (RESTARTED,),
    "worker killed": (REPLACED,),
    "worker's supervisor killed": (RESTARTED,),
    "api stopped": (DOWN, "KratosSyncNoApi"),
    "relay stopped": (DOWN, "KratosSyncNoRelay"),
    "worker stopped": (DOWN,),
    "clock jumps": "due times and leases go by PostgreSQL's clock alone",
    "database restarted at once": LEDGER,
    "database killed": LEDGER,
    "database backend killed": LEDGER,
    "database connections ended": LEDGER,
    "database connections cut": "they are opened again at once, and nothing is late",
    "commit lost": LEDGER,
    "commit's answer lost": LEDGER,
    "database silent": (*LEDGER, DOWN),
    "database slow": "everything arrives; KratosSyncLag fires if it is late by a minute",
    "database locked": (*LEDGER, "KratosSyncLag"),
    "database disk full": LEDGER,
    "broker killed": BROKER,
    "broker wiped": "what was in it is dispatched again at once",
    "broker replaced": BROKER,
    "broker out of memory": BROKER,
    "broker slow": "everything arrives; KratosSyncLag fires if it is late by a minute",
    "broker connections cut": "they are opened again at once, and nothing is late",
    "broker's answer lost": BROKER,
    "broker silent": BROKER,
    "consumer raises": (FAILED,),
    "consumer hangs": (FAILED, REPLACED),
    "consumer hangs in a call": (FAILED, REPLACED),
    "consumer hangs in SQL": (FAILED, REPLACED),
    "consumer keeps the interpreter": (REPLACED, DOWN),
    "consumer eats memory": (FAILED, REPLACED),
    "consumer exits": (REPLACED,),
}
"""The alerts of which one fires for a fault that lasts half a minute, or why none has to."""


class Firing(NamedTuple):
    """An alert, and when it fired, in the wall clock's seconds."""

    alert: str
    since: float
    until: float


class Prometheus:
    """A Prometheus that scrapes the service's processes and evaluates the rules."""

    def __init__(self, address: str) -> None:
        self._address = address

    def scrapes(self, processes: int) -> bool:
        """Whether it has scraped so many processes for some seconds: it sees what changes then."""
        answer = httpx.get(
            f"{self._address}/api/v1/query",
            params={"query": f"count(min_over_time(up[{LONG_ENOUGH}]) == 1)"},
            trust_env=False,
        )
        result: list[Mapping[str, Any]] = answer.json()["data"]["result"]
        return bool(result) and int(result[0]["value"][1]) == processes

    def firing(self, start: float, end: float) -> list[Firing]:
        """Every alert that fired between these times, oldest first."""
        query = {"query": 'ALERTS{alertstate="firing"}', "step": SCRAPE_SECONDS}
        answer = httpx.get(
            f"{self._address}/api/v1/query_range",
            params={**query, "start": start, "end": end},
            trust_env=False,
        )
        answer.raise_for_status()
        series: list[Mapping[str, Any]] = answer.json()["data"]["result"]
        found = [
            Firing(each["metric"]["alertname"], *span)
            for each in series
            for span in spans([at for at, _ in each["values"]])
        ]
        return sorted(found, key=lambda firing: firing.since)

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            return httpx.get(f"{self._address}/-/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False


def spans(times: Sequence[float]) -> Iterator[tuple[float, float]]:
    """The first and the last of each run of times without a gap."""
    first = last = None
    for at in times:
        if first is None or last is None:
            first = at
        elif at - last > GAP_SECONDS:
            yield first, last
            first = at
        last = at
    if first is not None and last is not None:
        yield first, last


def raised_by(kind: str, start: float, firings: Sequence[Firing]) -> tuple[str, float] | None:
    """The first expected alert that fired since a fault began, and after how many seconds."""
    expected, latest = EXPECTED[kind], start + LONGEST_ALERT_SECONDS
    if isinstance(expected, str):
        return None
    for firing in firings:
        if firing.alert in expected and firing.since <= latest and firing.until >= start:
            return firing.alert, max(firing.since - start, 0.0)
    return None


@contextmanager
def prometheus(folder: Path, ports: Mapping[str, int]) -> Iterator[Prometheus | None]:
    """Run Prometheus, scraping these ports; None where it is not installed."""
    if (program := shutil.which("prometheus")) is None:
        yield None
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "alerts.yaml").write_text(re.sub(r"\[\d+m\]", f"[{WINDOW}]", RULES.read_text()))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration(ports)))
    port = free_port()
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        running = Prometheus(f"http://127.0.0.1:{port}")
        until(running.is_ready, STARTS_SECONDS)
        yield running
    finally:
        process.kill()
        process.wait(STARTS_SECONDS)


def configuration(ports: Mapping[str, int]) -> dict[str, object]:
    """Prometheus' configuration: a target for each process."""
    every = f"{SCRAPE_SECONDS}s"
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}}
        for name, port in ports.items()
    ]
    return {
        "global": {
            "scrape_interval": every,
            "scrape_timeout": every,
            "evaluation_interval": every,
        },
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [{"job_name": "kratos-sync", "static_configs": targets}],
    }
