"""What a rate takes, by a model: ``python -m benchmarks.scaling``.

What a webhook costs each part when all are busy is in the published results of `make benchmark`;
what it leaves in PostgreSQL, and how many commits a second PostgreSQL's disk takes, is measured
here. The model (benchmarks/model.py) multiplies both; figures, plot and page are written.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Final

import matplotlib as mpl
import psycopg
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.filling import SYNC
from benchmarks.measures.pause import load
from benchmarks.model import (
    MICROSECONDS,
    Commits,
    Cost,
    MissingFigure,
    as_json,
    checked,
    cost_of,
    full_at,
    needs,
)
from benchmarks.plots import BLUE, GREEN, GREY, ORANGE, STYLE
from benchmarks.population import people_for
from benchmarks.report.scaling import FOLDER, PARTS, RATES, publish, read, sites
from benchmarks.stage import Stage, raised
from benchmarks.verdict import WrongResult, require
from tests.waiting import until

LONGEST_SECONDS: Final = 600.0
SECONDS_BEFORE: Final = 3
SECONDS_AFTER: Final = 10
"""So many that no webhook is sent twice, however late it is delivered."""
COLOURS: Final = {
    "api": BLUE,
    "relay": GREY,
    "worker": GREEN,
    "postgres": ORANGE,
    "broker": "#8957e5",
}
CONNECTIONS: Final = (1, 4, 16)
COMMIT_SECONDS: Final = 2
COMMIT_ROUNDS: Final = 3
"""The best counts: what disturbs a round makes it slower."""
LOOK: Final = """
    SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS wal,
           (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
            WHERE relnamespace = 'kratos_sync'::regnamespace AND relkind = 'r') AS disk,
           (SELECT count(*) FROM kratos_sync.events)
           + (SELECT count(*) FROM kratos_sync.attempts) AS rows,
           (SELECT count(*) FROM kratos_sync.attempts WHERE consumer = %s) AS webhooks
"""
# In the server, so that no client is measured.
COMMIT: Final = f"""
    DO $$
    DECLARE ends timestamptz := clock_timestamp() + interval '{COMMIT_SECONDS} s';
    BEGIN
        WHILE clock_timestamp() < ends LOOP
            INSERT INTO commits VALUES (1);
            COMMIT;
        END LOOP;
    END $$
"""  # noqa: S608  # every part is ours
FSYNCS: Final = "SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal'"


def left_in_postgres(stage: Stage, rate: int, seconds: int) -> dict[str, float]:
    """Send recorded webhooks at that rate; give each one's bytes of log and on disk, and its rows.

    Raises WrongResult.
    """
    with stage.deployed() as service:
        service.start_all()
        people = people_for((SECONDS_BEFORE + seconds + SECONDS_AFTER) * rate)
        with load(stage, service, rate, LONGEST_SECONDS, people):
            until(lambda: service.ask(LOOK, SYNC)[0]["webhooks"] > SECONDS_BEFORE * rate)
            (before,) = service.ask(LOOK, SYNC)
            sleep(seconds)
            (after,) = service.ask(LOOK, SYNC)
    spent = {name: after[name] - before[name] for name in before}
    webhooks = spent["webhooks"]
    require(webhooks > 0.9 * rate * seconds, f"only {webhooks:,} of {rate * seconds:,} delivered")
    return {
        "wal_bytes": round(spent["wal"] / webhooks),
        "disk_bytes": round(spent["disk"] / webhooks),
        "rows": round(spent["rows"] / webhooks, 2),
    }


def commits(url: str) -> Commits:
    """Commit one small row after another, on some connections at the same time."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE commits (number int)")
    counted = {
        number: max(_commits_and_fsyncs(url, number) for _ in range(COMMIT_ROUNDS))
        for number in CONNECTIONS
    }
    return Commits(
        milliseconds=round(1_000 * COMMIT_SECONDS / counted[1][0], 3),
        per_second={
            str(number): round(done / COMMIT_SECONDS) for number, (done, _) in counted.items()
        },
        per_fsync={
            str(number): round(done / synced, 1) for number, (done, synced) in counted.items()
        },
    )


def _commits_and_fsyncs(url: str, connections: int) -> tuple[int, int]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE commits")
        connection.execute("CHECKPOINT")
    before = _number(url, FSYNCS)
    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(_commit, [url] * connections))
    return _number(url, "SELECT count(*) FROM commits"), _number(url, FSYNCS) - before


def _commit(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(COMMIT.encode())


def _number(url: str, query: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        rows: list[tuple[int]] = connection.execute(query.encode()).fetchall()
    return rows[0][0]


def draw_cores(axes: Axes, cost: Cost) -> None:
    """Cores by rate, part upon part."""
    rates = [number * 1_000 for number in range(101)]
    below = [0.0] * len(rates)
    for part, spent in cost.cores.items():
        upper = [low + spent * rate / MICROSECONDS for low, rate in zip(below, rates, strict=True)]
        colour = COLOURS[part]
        axes.fill_between(rates, below, upper, color=colour, alpha=0.8, linewidth=0, label=part)
        below = upper
    axes.set_title("Cores by webhooks a second, as modelled")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend(loc="upper left")
    axes.margins(0)


def draw_full(axes: Axes, rates: Mapping[str, Mapping[str, int]]) -> None:
    """The rate at which each part of each site is full."""
    names = list(PARTS)[::-1]
    height = 0.8 / len(rates)
    for number, (site, full) in enumerate(rates.items()):
        places = [index - number * height for index in range(len(names))]
        values = [full[name] for name in names]
        colour = (ORANGE, BLUE)[number]
        bars = axes.barh(places, values, height=0.9 * height, color=colour, label=site)
        axes.bar_label(bars, [f"{value:,}" for value in values], padding=4, color=GREY)
    axes.set_yticks([index - 0.2 for index in range(len(names))], [PARTS[name] for name in names])
    axes.set_title("Webhooks a second at which each part is full")
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.margins(x=0.15)
    axes.legend(loc="lower right")


def plot(cost: Cost, measured: Commits) -> None:
    """Draw both into one file."""
    rates = {site.name: full_at(cost, measured, site) for site in sites(read("large"))}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 6.4), layout="constrained")
        cores, full = figure.subplots(2, 1)
        draw_cores(cores, cost)
        draw_full(full, rates)
        figure.savefig(FOLDER / "scaling.svg", transparent=True, metadata={"Date": None})


def main() -> int:
    """Measure, and write everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--rate", type=int, default=2_000, help="webhooks a second")
    parser.add_argument("--seconds", type=int, default=30, help="how long they are measured")
    arguments = parser.parse_args()
    results = read("results")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="scaling-") as folder,
            raised(Path(folder)) as stage,
        ):
            measured = commits(stage.postgres.url)
            cost = cost_of(results, **left_in_postgres(stage, arguments.rate, arguments.seconds))
    except (MissingFigure, WrongResult) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    published = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "results_at": results["at"],
        "machine": results["machine"],
        "rate": arguments.rate,
        **as_json(cost, measured),
        "needs": [needs(cost, rate) for rate in RATES],
        "checked": checked(cost, results),
    }
    publish(published, FOLDER / "scaling.json")
    plot(cost, measured)
    print(json.dumps(published, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
