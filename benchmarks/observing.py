"""``python -m benchmarks.observing [--pairs 5]``: what metrics cost, measured in turns.

Each pair is a run without METRICS_PORT and one with it, in which every process is scraped every
five seconds. Prints the ratio of the rates, and what each process takes of memory and CPU.
"""

import sys
import tempfile
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.measures.deliver import backlog, deliver
from benchmarks.measures.take_in import WARM_UP_SECONDS, one_round, ours
from benchmarks.population import population
from benchmarks.stage import Deployment, Stage, raised
from benchmarks.verdict import WrongResult
from benchmarks.wrk import WrkNotInstalled, load, require_wrk, write_bodies
from tests.ports import free_port

SCRAPE_SECONDS: Final = 5.0
PEOPLE: Final = 2_000
EVENTS: Final = 40_000
WEBHOOK_SECONDS: Final = 8

Run = Mapping[str, Any]


class ObservedDeployment(Deployment):
    """The service with metrics."""

    def __init__(self, *given: Any, **options: Any) -> None:
        self.metrics_ports: dict[str, int] = {}
        super().__init__(*given, **options)

    def environment_of(self, name: str) -> dict[str, str]:
        port = self.metrics_ports.setdefault(name, free_port())
        return {**super().environment_of(name), "METRICS_PORT": str(port)}


class ObservedStage(Stage):
    """A stage whose deployments have metrics, which are scraped while they run."""

    kind = ObservedDeployment

    @contextmanager
    def deployed(self) -> Iterator[Deployment]:
        with super().deployed() as service:
            assert isinstance(service, ObservedDeployment)  # noqa: S101  # as `kind` says
            with scraped(service.metrics_ports):
                yield service


@contextmanager
def scraped(ports: Mapping[str, int]) -> Iterator[None]:
    """Scrape these ports every few seconds, from a thread."""
    left = threading.Event()

    def scrape() -> None:
        while not left.wait(SCRAPE_SECONDS):
            for port in list(ports.values()):
                with suppress(OSError, HTTPException), closing(_connection(port)) as connection:
                    connection.request("GET", "/metrics")
                    connection.getresponse().read()

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def _connection(port: int) -> HTTPConnection:
    # An HTTP client that prepares for TLS each time would cost more than what is measured.
    return HTTPConnection("127.0.0.1", port, timeout=30)


def webhooks(stage: Stage) -> Run:
    """Take in webhooks with an api alone. Raises WrongResult."""
    bodies = write_bodies(stage.folder, population(PEOPLE).calls)
    with stage.deployed() as service:
        service.start_api()
        load(service.address, bodies, WARM_UP_SECONDS)
        return one_round(service.database_url, ours(stage, service), bodies, WEBHOOK_SECONDS)


def deliveries(stage: Stage) -> Run:
    """Deliver a backlog with a relay and a worker for each core. Raises WrongResult."""
    return deliver(stage, backlog(EVENTS))


MEASURES: Final = (webhooks, deliveries)


def compared(measure: Callable[[Stage], Run], without: Stage, with_: Stage, pairs: int) -> str:
    """Take turns, the order changing with each pair; a line for the rate and one a process."""
    runs: dict[Stage, list[Run]] = {without: [], with_: []}
    for number in range(pairs):
        for stage in (without, with_) if number % 2 == 0 else (with_, without):
            runs[stage].append(measure(stage))
    off, on = runs[without], runs[with_]
    ratios = [more["rate"] / less["rate"] for less, more in zip(off, on, strict=True)]
    lines = [
        f"{measure.__name__}: {median(ratios) - 1:+.1%} of the rate, the median of {pairs} pairs"
        f" ({', '.join(f'{ratio - 1:+.1%}' for ratio in ratios)});"
        f" {median(run['rate'] for run in off):,.0f}/s without,"
        f" {median(run['rate'] for run in on):,.0f}/s with"
    ]
    for process in sorted(off[0]["cpu_microseconds"]):
        cpu = [median(run["cpu_microseconds"][process] for run in of) for of in (off, on)]
        line = f"  {process:<9} {cpu[0]:6.1f} µs {cpu[1] - cpu[0]:+5.1f} µs of CPU for each"
        if process in off[0]["memory"]:
            memory = [median(run["memory"][process]["pss_mb"] for run in of) for of in (off, on)]
            line += f"  {memory[0]:6.1f} MB {memory[1] - memory[0]:+5.1f} MB"
        lines.append(line)
    return "\n".join(lines)


def main() -> int:
    """Run; say what went wrong in one line."""
    parser = ArgumentParser(prog="python -m benchmarks.observing", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", choices=[each.__name__ for each in MEASURES])
    given = parser.parse_args()
    try:
        require_wrk()
        with (
            tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
            raised(Path(folder)) as stage,
        ):
            observed_folder = Path(folder) / "observed"
            observed_folder.mkdir()
            observed = ObservedStage(observed_folder, stage.postgres, stage.valkey)
            for measure in MEASURES:
                if given.only in {None, measure.__name__}:
                    print(compared(measure, stage, observed, given.pairs), flush=True)
    except (WrkNotInstalled, WrongResult) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
