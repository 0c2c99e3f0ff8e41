"""Whether rates hold in a large database: ``python -m benchmarks.large``.

The same work is measured with few rows and with ten million identities, fifty million events and
their attempts on disk, in one run; then a purge removes a tenth while webhooks are delivered.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any, Final

import psycopg

from benchmarks.commands import ROOT, program
from benchmarks.filling import hurried, settle, without_indexes
from benchmarks.machine import machine
from benchmarks.measures.deliver import A_WORKER_FOR_EACH_CORE
from benchmarks.measures.pause import load as steady_load
from benchmarks.pace import pace
from benchmarks.population import population
from benchmarks.report.scaling import FOLDER, publish
from benchmarks.seeding import Seed, remember_templates, seed
from benchmarks.stage import POSTGRES_SETTINGS, Deployment, Stage, raised
from benchmarks.verdict import WrongResult, require
from benchmarks.wrk import load, write_bodies
from tests.waiting import until

PUBLISHED: Final = (FOLDER / "large.json").relative_to(ROOT)
DAYS: Final = 29
"""Within the retention of attempts, so that no purge begins by itself."""
KEPT_DAYS: Final = 26
CHUNK: Final = 500_000
WAVE_EVENTS: Final = 50_000
WAVES: Final = 16
SMALL_STORED: Final = 200_000
"""So many that the backlog is about as many different people as in the large database."""
SMALL_EVENTS: Final = 10_000
MEASURED: Final = ("delivering", "recording")
LEAST_RATIO: Final = 0.85
ROUNDS: Final = 5
ROUND_SECONDS: Final = 8
WEBHOOKS_PER_SECOND: Final = 1_000
PEOPLE: Final = 2_000
LONGEST_SECONDS: Final = 3_600.0
FILLED: Final = ("kratos_identities", "events", "attempts")
# One of ten is a fact; their ids and times rise together, as the service's own do.
EVENTS: Final = f"""
    WITH recorded AS (
        INSERT INTO kratos_sync.events
            (id, name, subject, occurred_at, recorded_at, payload, source, dedupe_key, hook)
        SELECT id, CASE WHEN is_fact THEN 'identity.traits_changed'
                        ELSE 'kratos_identity.updated' END,
               md5('person' || number %% %(identities)s)::uuid, at, at,
               json_build_object('identity', json_build_object('traits', json_build_object(
                   'email', 'robin-' || number || '@example.org'))),
               CASE WHEN is_fact THEN 'SyncKratosIdentity' ELSE 'webhook' END,
               CASE WHEN is_fact THEN 'fact:' ELSE 'webhook:' END || id,
               CASE WHEN NOT is_fact THEN 'settings.after.profile' END
        FROM (SELECT number, number %% 10 = 0 AS is_fact, now() - since AS at, uuidv7(-since) AS id
              FROM (SELECT number,
                           interval '{DAYS} d' * (1 - number::float / %(events)s) AS since
                    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS number
                   ) AS numbered
             ) AS filled
        RETURNING id, recorded_at
    )
    INSERT INTO kratos_sync.attempts (event_id, consumer, number, outcome, started_at, duration)
    SELECT id, 'SyncKratosIdentity', 1, 'succeeded', recorded_at, '3 ms' FROM recorded
"""  # noqa: S608  # every part is ours
NO_PURGE_IS_DUE: Final = "INSERT INTO kratos_sync.purges (ended_at) VALUES (now())"
LAST_ATTEMPT: Final = "SELECT coalesce(max(id), 0) AS id FROM kratos_sync.attempts"
WRITTEN: Final = """
    SELECT (SELECT wal_bytes FROM pg_stat_wal)::float AS wal,
           (SELECT wal_fpi * 8192 FROM pg_stat_wal)::float AS full_pages,
           (SELECT sum(read_bytes) FROM pg_stat_io)::float AS read
"""
WAITING: Final = """
    SELECT FROM kratos_sync.deliveries
    WHERE attempts = 0 AND owed_at < now() - interval '5 s' LIMIT 1
"""
FAILED: Final = """
    SELECT count(*) AS n FROM kratos_sync.attempts WHERE id > %s AND outcome <> 'succeeded'
"""
SIZES: Final = """
    SELECT relname AS name, pg_total_relation_size(oid) AS bytes FROM pg_class
    WHERE relnamespace = 'kratos_sync'::regnamespace AND relkind = 'r'
      AND pg_total_relation_size(oid) > 1e8
"""


def fill(url: str, wanted: Seed, events: int) -> int:
    """Fill empty tables, with indexes built afterwards; the events of a wave, to be delivered."""
    with hurried(url), ThreadPoolExecutor(A_WORKER_FOR_EACH_CORE) as threads:
        with without_indexes(url, "kratos_identities", keys=True):
            wave = seed(url, wanted).wave_events
        with without_indexes(url, "events", "attempts"):
            firsts = range(1, events + 1, CHUNK)
            for number, _ in enumerate(threads.map(partial(_fill_chunk, url, events), firsts), 1):
                print(f"  {number * CHUNK:,} events", file=sys.stderr, flush=True)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(NO_PURGE_IS_DUE)
    settle(url, *FILLED)
    return wave


def _fill_chunk(url: str, events: int, first: int) -> None:
    last = min(first + CHUNK - 1, events)
    numbers = {"identities": max(events // 5, 1), "events": events, "first": first, "last": last}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(EVENTS.encode(), numbers)


def rates(stage: Stage, service: Deployment) -> dict[str, Any]:
    """Deliver the backlog, and then take in webhooks, each for some rounds; the medians' rates."""
    first = _last_attempt(service)
    service.start_workers(A_WORKER_FOR_EACH_CORE)
    index = pace()
    service.start_relay()
    until(lambda: _last_attempt(service) > first + WAVE_EVENTS // 2)
    before, began = service.ask(WRITTEN)[0], perf_counter()
    delivering = [_attempts_per_second(service) for _ in range(ROUNDS)]
    after, seconds = service.ask(WRITTEN)[0], perf_counter() - began
    per_second = {name: round((after[name] - before[name]) / seconds / 1e6, 1) for name in before}
    require(bool(service.ask(WAITING)), "the backlog ended while it was measured")
    service.stop(*service.pids())
    service.start_api()
    bodies = write_bodies(stage.folder, population(PEOPLE).calls)
    load(service.address, bodies, 1)
    recording = []
    for _ in range(ROUNDS):
        figures = load(service.address, bodies, ROUND_SECONDS)
        require(not figures["refused"] and not figures["broken"], "webhooks were refused")
        recording.append(figures["rate"])
    service.stop(*service.pids())
    (failed,) = service.ask(FAILED, first)
    require(not failed["n"], f"{failed['n']} attempts failed")
    return {
        "pace": index,
        "delivering": {
            "rate": median(delivering),
            "rounds": delivering,
            "megabytes_per_second": per_second,
        },
        "recording": {"rate": median(recording), "rounds": recording},
    }


def _attempts_per_second(service: Deployment) -> float:
    first, began = _last_attempt(service), perf_counter()
    sleep(ROUND_SECONDS)
    return round((_last_attempt(service) - first) / (perf_counter() - began), 1)


def _last_attempt(service: Deployment) -> int:
    last: int = service.ask(LAST_ATTEMPT)[0]["id"]
    return last


def purge(stage: Stage, service: Deployment) -> dict[str, Any]:
    """Remove what is older than ``KEPT_DAYS`` while webhooks are delivered at a steady rate."""
    service.start_all()
    with steady_load(stage, service, WEBHOOKS_PER_SECOND, LONGEST_SECONDS):
        until(lambda: not service.ask(WAITING), seconds=600)
        before = _attempts_per_second(service)
        first, began = _last_attempt(service), perf_counter()
        command = [
            *(*program(), "purge", "--json", "--events-older-than", f"{KEPT_DAYS}d"),
            *("--attempts-older-than", f"{KEPT_DAYS}d"),
        ]
        done = subprocess.run(  # noqa: S603
            command,
            cwd=ROOT,
            env=service.environment_of("purge"),
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = perf_counter() - began
        meanwhile = (_last_attempt(service) - first) / seconds
    require(done.returncode == 0, f"the purge ended with {done.returncode}: {done.stderr[-300:]}")
    return {
        **json.loads(done.stdout),
        "seconds": round(seconds, 1),
        "attempts_per_second": {"before": before, "meanwhile": round(meanwhile, 1)},
    }


def measure(stage: Stage, wanted: Seed, events: int, *, purged: bool) -> dict[str, Any]:
    """Fill, and measure all. Raises WrongResult."""
    with stage.deployed() as service:
        began = perf_counter()
        fill(service.database_url, wanted, events)
        figures: dict[str, Any] = {
            "identities": wanted.stored,
            "events": events,
            "filling_seconds": round(perf_counter() - began, 1),
            "gigabytes": {row["name"]: round(row["bytes"] / 1e9, 2) for row in service.ask(SIZES)},
        }
        _say(figures)
        figures |= rates(stage, service)
        if purged:
            _say(figures)
            figures["purge"] = purge(stage, service)
    _say(figures)
    return figures


def _say(figures: dict[str, Any]) -> None:
    print(json.dumps(figures), file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, and write the figures if told where."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--identities", type=int, default=10_000_000)
    parser.add_argument("--events", type=int, default=50_000_000)
    parser.add_argument("--folder", help="where PostgreSQL's files are put: 60 GB by default")
    parser.add_argument(
        "--setting", action="append", default=[], help="PostgreSQL's, such as shared_buffers=4GB"
    )
    parser.add_argument(
        "--output", type=Path, help=f"a file for the figures; {PUBLISHED} is published"
    )
    arguments = parser.parse_args()
    small = Seed(stored=SMALL_STORED, waves=WAVES, wave_events=WAVE_EVENTS)
    large = replace(small, stored=arguments.identities)
    settings = POSTGRES_SETTINGS | dict(each.split("=", 1) for each in arguments.setting)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="large-", dir=arguments.folder) as folder,
            raised(Path(folder), settings) as stage,
        ):
            remember_templates(stage)
            results: dict[str, Any] = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": machine(stage),
                "settings": settings,
                "small": measure(stage, small, SMALL_EVENTS, purged=False),
                "large": measure(stage, large, arguments.events, purged=True),
            }
    except WrongResult as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    ratios: dict[str, float] = {
        name: round(results["large"][name]["rate"] / results["small"][name]["rate"], 3)
        for name in MEASURED
    }
    results["ratios"] = ratios
    print(json.dumps(results, indent=1))
    if arguments.output is not None:
        publish(results, arguments.output)
    if slow := {name: ratio for name, ratio in ratios.items() if ratio < LEAST_RATIO}:
        print(f"FAILED: below {LEAST_RATIO} of the small database's rate: {slow}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
