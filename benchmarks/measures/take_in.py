"""How many webhooks a second are taken in: by us, by FastAPI and SQLAlchemy, by an idle route."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import psycopg
from tests.end_to_end.service import KEY
from tests.infrastructure.bus.waiting import until

from benchmarks import statements
from benchmarks.commands import ROOT
from benchmarks.crowd import crowd
from benchmarks.stage import Stage, empty
from benchmarks.verdict import require
from benchmarks.watch import Watch
from benchmarks.wrk import CONNECTIONS, PATH, load, write_bodies

WARM_UP_SECONDS = 1
UNDER_WAY_SECONDS = 0.5
PEOPLE = 2_000
LIKE_OURS = """
    CREATE SCHEMA IF NOT EXISTS rivals;
    CREATE TABLE IF NOT EXISTS rivals.events (LIKE kratos_sync.events INCLUDING ALL);
    CREATE TABLE IF NOT EXISTS rivals.deliveries (LIKE kratos_sync.deliveries INCLUDING ALL);
    ALTER TABLE rivals.events ALTER COLUMN occurred_at SET DEFAULT now(),
                              ALTER COLUMN source SET DEFAULT 'webhook';
"""


def take_in(stage: Stage, seconds: int) -> dict[str, Any]:
    """Measure all three, one after the other. Raises WrongResult."""
    bodies = write_bodies(stage.folder, crowd(PEOPLE).calls)
    return {
        "ours": ours(stage, bodies, seconds),
        "ours_delivering": ours(stage, bodies, seconds, delivering=True),
        "fastapi": _rival(stage, "fastapi_intake", bodies, seconds, records=True),
        "bare": _rival(stage, "bare_intake", bodies, seconds, records=False),
    }


def ours(stage: Stage, bodies: Path, seconds: int, *, delivering: bool = False) -> dict[str, Any]:
    """The api by itself as the rivals are, or with relay and worker at work beside it."""
    with stage.deployed() as service:
        if delivering:
            service.start_workers()
            service.start_relay()
        service.start_api()
        load(service.address, bodies, WARM_UP_SECONDS)
        before = _events(service.database_url, "kratos_sync")
        statements.forget(service.database_url)
        with Watch({**service.pids(), **stage.server_pids()}) as watch:
            figures = load(service.address, bodies, seconds)
        dearest = statements.dearest(service.database_url)
        _check(figures, _events(service.database_url, "kratos_sync") - before)
    return {
        **figures,
        "cpu_microseconds": watch.cpu_microseconds(figures["accepted"]),
        "memory": watch.memory(),
        "statements": dearest,
    }


def _rival(
    stage: Stage, module: str, bodies: Path, seconds: int, *, records: bool
) -> dict[str, Any]:
    url = stage.postgres.url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(LIKE_OURS)
    empty(url, "rivals")
    with _served(module, url) as address:
        load(address, bodies, WARM_UP_SECONDS)
        before = _events(url, "rivals")
        figures = load(address, bodies, seconds)
        if records:
            _check(figures, _events(url, "rivals") - before)
    return figures


def _check(figures: dict[str, Any], recorded: int) -> None:
    require(not figures["refused"], f"{figures['refused']} webhooks were refused")
    require(not figures["broken"], f"{figures['broken']} connections broke")
    # What was under way when wrk stopped may have been recorded; wrk does not count it.
    require(
        0 <= recorded - figures["accepted"] <= CONNECTIONS,
        f"{figures['accepted']} were answered 200, {recorded} were recorded",
    )


def _events(url: str, schema: str) -> int:
    """Count, when what was under way has ended."""
    sleep(UNDER_WAY_SECONDS)
    with psycopg.connect(url) as connection:
        counting = f"SELECT count(*) FROM {schema}.events WHERE dedupe_key IS NOT NULL"  # noqa: S608
        rows: list[tuple[int]] = connection.execute(counting.encode()).fetchall()
    return rows[0][0]


@contextmanager
def _served(module: str, database_url: str) -> Iterator[str]:
    """Serve a rival's application as ours is: uvicorn, uvloop, httptools, one process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    serve = [sys.executable, "-m", "uvicorn", f"benchmarks.rivals.{module}:app", "--port", port]
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    server = subprocess.Popen(  # noqa: S603
        [*serve, *options, "--log-level", "warning"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url, "API_KEY": KEY},
    )
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: _answers(address), seconds=60)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}{PATH}", trust_env=False).status_code > 0
    except httpx.TransportError:
        return False
