"""How fast others deliver the same events on the same servers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import psycopg
import redis
from sqlalchemy import URL, create_engine, make_url, text

from benchmarks.commands import ROOT
from benchmarks.measures.beside import Measure, brief
from benchmarks.pace import pace
from benchmarks.population import people_for, population, some_twice
from benchmarks.rivals.field import FIELD, Rival, Setting
from benchmarks.rivals.work import Base
from benchmarks.stage import Stage, empty
from benchmarks.verdict import require
from tests.recorded import Recording

DATABASE = "rivals"
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
PROGRAMS = Path(sys.executable).parent
LONGEST_SECONDS = 120
LOOK_SECONDS = 0.02


def rivals(
    stage: Stage,
    events: int,
    events_to_try: int,
    ours: Measure,
    field: Sequence[Rival] = FIELD,
) -> list[dict[str, Any]]:
    """Measure each at its best setting, found with fewer events, and ours right before it.

    Raises WrongResult.
    """
    url = _database(stage)
    return [_rival(stage, url, rival, events, events_to_try, ours) for rival in field]


def _rival(  # noqa: PLR0917
    stage: Stage, url: URL, rival: Rival, events: int, events_to_try: int, ours: Measure
) -> dict[str, Any]:
    tried = {}
    best = rival.settings[0]
    if events_to_try:
        for setting in rival.settings:
            tried[setting.name] = _rate(stage, url, rival, setting, events_to_try)
        best = max(rival.settings, key=lambda setting: tried[setting.name])
    own = brief(ours())
    index = pace()
    rate = _rate(stage, url, rival, best, events)
    return {
        "name": rival.name,
        "setting": best.name,
        "events": events,
        "rate": rate,
        "pace": index,
        "ours": own,
        "ratio": round(own["rate"] / rate, 2),
        "tried": tried,
    }


def _rate(stage: Stage, url: URL, rival: Rival, setting: Setting, count: int) -> float:
    """Enqueue, start the workers, and time from the first event done to the last."""
    recording = population(people_for(count))
    libpq_url = _libpq(url)
    empty(libpq_url, "rivals")
    empty(libpq_url, "public")
    with redis.Redis.from_url(stage.valkey.url) as client:
        client.flushall()
    environment = {
        **ENVIRONMENT,
        "DATABASE_URL": url.render_as_string(hide_password=False),
        "BROKER_URL": stage.valkey.url,
        **setting.environment,
    }
    events = _write(stage.folder / "events", recording, count)
    enqueue = [sys.executable, "-m", "benchmarks.rivals.enqueue", rival.module, str(events)]
    subprocess.run(enqueue, cwd=ROOT, env=environment, check=True)  # noqa: S603
    log = stage.folder / "rival.log"
    with (
        psycopg.connect(libpq_url, autocommit=True) as connection,
        _running(rival, setting, environment, log),
    ):
        deadline = perf_counter() + LONGEST_SECONDS
        first = _wait_for(connection, 1, deadline, log)
        began = perf_counter()
        last = _wait_for(connection, count, deadline, log)
        seconds = perf_counter() - began
        people = _count(connection, "identities")
    require(last == count, f"{rival.name} consumed {last} of {count} events")
    require(people == len(recording.listing), f"{rival.name} wrote {people} identities")
    return round((last - first) / seconds, 1)


@contextmanager
def _running(
    rival: Rival, setting: Setting, environment: Mapping[str, str], log: Path
) -> Iterator[None]:
    program, *arguments = rival.command
    command = [str(PROGRAMS / program), *arguments, *setting.arguments]
    with log.open("wb") as output:
        workers = [
            subprocess.Popen(  # noqa: S603
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            for _ in range(setting.commands)
        ]
    try:
        yield
    finally:
        # All was done and counted: nobody need wait for them, or their children, to end in order.
        for worker in workers:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def _wait_for(connection: psycopg.Connection, events: int, deadline: float, log: Path) -> int:
    while (done := _count(connection, "inbox")) < events:
        require(
            perf_counter() < deadline, f"{done} of {events} were done: {log.read_text()[-500:]}"
        )
        sleep(LOOK_SECONDS)
    return done


def _count(connection: psycopg.Connection, table: str) -> int:
    counting = f"SELECT count(*) FROM rivals.{table}"  # noqa: S608
    rows: list[tuple[int]] = connection.execute(counting.encode()).fetchall()
    return rows[0][0]


def _write(file: Path, recording: Recording, count: int) -> Path:
    with file.open("w") as lines:
        for number, call in enumerate(some_twice(recording.calls, count, seed=1)):
            event_id = f"00000000-0000-7000-8000-{number:012x}"
            print(json.dumps({"event_id": event_id, "identity": call.identity}), file=lines)
    return file


def _database(stage: Stage) -> URL:
    """Make a database for them on our server, with their tables and Procrastinate's."""
    with psycopg.connect(stage.postgres.url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {DATABASE}".encode())
    url = make_url(stage.postgres.url).set(drivername="postgresql+psycopg", database=DATABASE)
    engine = create_engine(url)
    with engine.begin() as transaction:
        transaction.execute(text("CREATE SCHEMA rivals"))
        Base.metadata.create_all(transaction)
    engine.dispose()
    schema = [str(PROGRAMS / "procrastinate"), "--app", f"{FIELD[-1].module}.app", "schema"]
    environment = {**ENVIRONMENT, "DATABASE_URL": url.render_as_string()}
    subprocess.run(  # noqa: S603
        [*schema, "--apply"], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    return url


def _libpq(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
