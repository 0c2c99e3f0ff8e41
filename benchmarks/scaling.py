"""What a rate takes, by a model: ``python -m benchmarks.scaling``.

What a webhook costs each part when all are busy is in the published results of `make benchmark`;
what it leaves in PostgreSQL is measured here, while webhooks come at a steady rate. Both are
multiplied by larger rates, and written with a plot below docs/performance.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import ceil
from pathlib import Path
from time import sleep
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.commands import ROOT
from benchmarks.filling import SYNC
from benchmarks.measures.pause import load
from benchmarks.plots import BLUE, GREEN, GREY, ORANGE, STYLE
from benchmarks.stage import Stage, raised
from benchmarks.verdict import WrongResult, require
from tests.waiting import until

FOLDER: Final = ROOT / "docs" / "performance"
LONGEST_SECONDS: Final = 600.0
RATES: Final = (1_000, 10_000, 30_000, 100_000)
PARTS: Final = {"api": BLUE, "relay": GREY, "worker": GREEN, "postgres": ORANGE}
BUSY: Final = 0.7
"""The part of its time that a process or a server works when it is planned well."""
DAY: Final = 86_400
LOOK: Final = """
    SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS wal,
           (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
            WHERE relnamespace = 'kratos_sync'::regnamespace AND relkind = 'r') AS disk,
           (SELECT count(*) FROM kratos_sync.attempts WHERE consumer = %s) AS webhooks
"""


@dataclass(frozen=True)
class Cost:
    """What a webhook costs, with the facts that follow from it and all deliveries of both.

    Microseconds of a core in the process of each part, and bytes in PostgreSQL.
    """

    api: float
    relay: float
    worker: float
    postgres: float
    wal_bytes: float
    disk_bytes: float


def cost_of(results: Mapping[str, Any], wal_bytes: float, disk_bytes: float) -> Cost:
    """The costs in a published run: of recording webhooks, and of delivering a backlog."""
    recording = results["take_in"]["ours"]["cpu_microseconds"]
    delivering = results["deliver"]["cpu_microseconds"]
    return Cost(
        api=recording["api"],
        relay=delivering["relay"],
        worker=sum(spent for name, spent in delivering.items() if name.startswith("worker")),
        postgres=recording["postgres"] + delivering["postgres"],
        wal_bytes=wal_bytes,
        disk_bytes=disk_bytes,
    )


def left_in_postgres(stage: Stage, rate: int, seconds: int) -> tuple[float, float]:
    """Send webhooks at that rate; give each one's bytes of WAL and on disk. Raises WrongResult."""
    with stage.deployed() as service:
        service.start_all()
        with load(stage, service, rate, LONGEST_SECONDS):
            until(lambda: service.ask(LOOK, SYNC)[0]["webhooks"] > 3 * rate)
            (before,) = service.ask(LOOK, SYNC)
            sleep(seconds)
            (after,) = service.ask(LOOK, SYNC)
    spent = {name: after[name] - before[name] for name in before}
    webhooks = spent["webhooks"]
    require(webhooks > 0.9 * rate * seconds, f"only {webhooks:,} of {rate * seconds:,} delivered")
    return round(spent["wal"] / webhooks), round(spent["disk"] / webhooks)


def needs(cost: Cost, rate: int) -> dict[str, Any]:
    """What so many webhooks a second take."""
    cores = {part: getattr(cost, part) * rate / 1e6 for part in PARTS}
    processes = {part: ceil(cores[part] / BUSY) for part in ("api", "relay", "worker")}
    return {
        "rate": rate,
        "cores": {part: round(number, 1) for part, number in cores.items()},
        "processes": processes,
        "wal_megabytes_per_second": round(cost.wal_bytes * rate / 1e6, 1),
        "disk_gigabytes_per_day": round(cost.disk_bytes * rate * DAY / 1e9),
    }


def most(cost: Cost, cores: int, wal_megabytes: int) -> dict[str, float]:
    """The rates at which a PostgreSQL of so many cores, and of so much WAL a second, is full."""
    return {
        "cores": round(BUSY * cores / cost.postgres * 1e6),
        "wal": round(BUSY * wal_megabytes / cost.wal_bytes * 1e6),
    }


def table(cost: Cost) -> str:
    """The needs by rate, for the documentation."""
    rows = [
        "| webhooks a second | api | relay | worker | PostgreSQL | WAL | disk, while it is kept |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for rate in RATES:
        of = needs(cost, rate)
        processes = " | ".join(str(of["processes"][part]) for part in ("api", "relay", "worker"))
        rows.append(
            f"| {rate:,} | {processes} | {of['cores']['postgres']:.1f} cores"
            f" | {of['wal_megabytes_per_second']:,.0f} MB/s"
            f" | {of['disk_gigabytes_per_day']:,} GB a day |"
        )
    return "\n".join(rows)


def draw(axes: Axes, cost: Cost) -> None:
    """Cores by rate, part upon part."""
    rates = [number * 1_000 for number in range(101)]
    below = [0.0] * len(rates)
    for part, colour in PARTS.items():
        upper = [
            low + getattr(cost, part) * rate / 1e6 for low, rate in zip(below, rates, strict=True)
        ]
        axes.fill_between(rates, below, upper, color=colour, alpha=0.8, linewidth=0, label=part)
        below = upper
    axes.set_title("Cores by webhooks a second, as modelled")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(loc="upper left")
    axes.margins(0)


def publish(results: Mapping[str, Any], cost: Cost, folder: Path) -> None:
    """Write the figures and the plot."""
    (folder / "scaling.json").write_text(json.dumps(results, indent=1) + "\n")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        draw(figure.add_subplot(), cost)
        figure.savefig(folder / "scaling.svg", transparent=True, metadata={"Date": None})


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--rate", type=int, default=2_000, help="webhooks a second")
    parser.add_argument("--seconds", type=int, default=30, help="how long they are measured")
    arguments = parser.parse_args()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="scaling-") as folder,
            raised(Path(folder)) as stage,
        ):
            left = left_in_postgres(stage, arguments.rate, arguments.seconds)
    except WrongResult as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    published = json.loads((FOLDER / "results.json").read_text())
    cost = cost_of(published, *left)
    results = {
        "machine": published["machine"],
        "cost": asdict(cost),
        "needs": [needs(cost, rate) for rate in RATES],
    }
    publish(results, cost, FOLDER)
    for field in fields(cost):
        print(f"{field.name}: {getattr(cost, field.name):,}")
    print(f"\n{table(cost)}\n")
    for cores, megabytes in ((8, 125), (32, 1_000)):
        print(f"{cores} cores, {megabytes} MB/s of WAL: {most(cost, cores, megabytes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
