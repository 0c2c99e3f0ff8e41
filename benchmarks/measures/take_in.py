"""How many webhooks a second are accepted: by us, by FastAPI and SQLAlchemy, by an idle route."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import sleep
from typing import Any

import psycopg

from benchmarks import statements
from benchmarks.pace import pace
from benchmarks.population import population
from benchmarks.serving import served
from benchmarks.stage import Deployment, Stage, empty
from benchmarks.verdict import require
from benchmarks.watch import Watch, merged
from benchmarks.wrk import CONNECTIONS, load, write_bodies

WARM_UP_SECONDS = 1
UNDER_WAY_SECONDS = 0.3
PEOPLE = 2_000
LIKE_OURS = """
    CREATE SCHEMA IF NOT EXISTS rivals;
    CREATE TABLE IF NOT EXISTS rivals.events (LIKE kratos_sync.events INCLUDING ALL);
    CREATE TABLE IF NOT EXISTS rivals.deliveries (LIKE kratos_sync.deliveries INCLUDING ALL);
    ALTER TABLE rivals.events ALTER COLUMN occurred_at SET DEFAULT now(),
                              ALTER COLUMN source SET DEFAULT 'webhook';
"""
Figures = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """Who takes in webhooks, whom to watch meanwhile, and the schema that it records in, if any."""

    address: str
    watched: Mapping[str, int]
    records_in: str = ""


def take_in(stage: Stage, rounds: int, seconds: int, seconds_delivering: int) -> dict[str, Any]:
    """All servers at once, loaded in turns; then ours while it delivers. Raises WrongResult."""
    bodies = write_bodies(stage.folder, population(PEOPLE).calls)
    url = stage.postgres.url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(LIKE_OURS)
    empty(url, "rivals")
    rivals = served(("fastapi_intake", "bare_intake"), url)
    with stage.deployed() as service, rivals as (fastapi, bare):
        service.start_api()
        servers = {
            "bare": Server(bare, stage.server_pids()),
            "ours": ours(stage, service),
            "fastapi": Server(fastapi, stage.server_pids(), "rivals"),
        }
        for server in servers.values():
            load(server.address, bodies, WARM_UP_SECONDS)
        loaded = [
            {name: one_round(url, server, bodies, seconds) for name, server in servers.items()}
            for _ in range(rounds)
        ]
    measured = {name: _summary([each[name] for each in loaded]) for name in servers}
    for name in ("bare", "fastapi"):
        ratios = [round(each["ours"]["rate"] / each[name]["rate"], 3) for each in loaded]
        measured[name] |= {"ratio": median(ratios), "ratios": ratios}
    delivering = _while_delivering(stage, bodies, seconds_delivering)
    return {**measured, "ours_delivering": delivering}


def _while_delivering(stage: Stage, bodies: Path, seconds: int) -> Figures:
    with stage.deployed() as service:
        service.start_all()
        load(service.address, bodies, WARM_UP_SECONDS)
        return one_round(service.database_url, ours(stage, service), bodies, seconds)


def ours(stage: Stage, service: Deployment) -> Server:
    watched = {**service.pids(), **stage.server_pids()}
    return Server(service.address, watched, "kratos_sync")


def one_round(url: str, server: Server, bodies: Path, seconds: int) -> Figures:
    """One round; what the watched processes, and PostgreSQL, did in it is part of the figures."""
    before = _recorded(url, server)
    statements.forget(url)
    index = pace()
    with Watch(server.watched) as watch:
        figures = load(server.address, bodies, seconds)
    dearest = statements.dearest(url)
    require(not figures["refused"], f"{figures['refused']} webhooks were refused")
    require(not figures["broken"], f"{figures['broken']} connections broke")
    recorded = _recorded(url, server) - before
    # What was under way when wrk stopped may have been recorded; wrk does not count it.
    require(
        not server.records_in or 0 <= recorded - figures["accepted"] <= CONNECTIONS,
        f"{figures['accepted']} were answered 200, {recorded} were recorded",
    )
    return {
        **figures,
        "pace": index,
        "cpu_microseconds": watch.cpu_microseconds(figures["accepted"]),
        "memory": watch.memory(),
        "statements": dearest,
    }


def _summary(loaded: list[Figures]) -> Figures:
    """The medians of a server's rounds, and all of them."""
    spent = [each.pop("cpu_microseconds") for each in loaded]
    dearest = [each.pop("statements") for each in loaded]
    return {
        **{name: median(each[name] for each in loaded) for name in ("rate", "p50_ms", "p99_ms")},
        "cpu_microseconds": {name: median(each[name] for each in spent) for name in spent[0]},
        "memory": merged(*(each.pop("memory") for each in loaded)),
        "statements": dearest[-1],
        "rounds": loaded,
    }


def _recorded(url: str, server: Server) -> int:
    """Count, when what was under way has ended."""
    if not server.records_in:
        return 0
    sleep(UNDER_WAY_SECONDS)
    with psycopg.connect(url) as connection:
        counting = (
            f"SELECT count(*) FROM {server.records_in}.events"  # noqa: S608
            " WHERE dedupe_key IS NOT NULL"
        )
        rows: list[tuple[int]] = connection.execute(counting.encode()).fetchall()
    return rows[0][0]
