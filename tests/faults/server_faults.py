"""Faults done to PostgreSQL and the broker themselves."""

import time
from contextlib import closing
from random import Random
from signal import SIGKILL, SIGQUIT

import psycopg

from tests.faults.outside import Outside
from tests.faults.schedule import Fault
from tests.faults.stage import Stage
from tests.waiting import until

NOTICED_SECONDS = 10.0
OURS = "application_name LIKE 'kratos-sync%%' AND datname = current_database()"


def restart_database(stage: Stage, _fault: Fault) -> None:
    """Let PostgreSQL shut down as by `pg_ctl stop -m immediate`; it is started at once."""
    until(stage.postgres.is_alive)
    stage.postgres.crash(SIGQUIT)


def kill_database(stage: Stage, _fault: Fault) -> None:
    """Kill all of PostgreSQL's processes; it is started at once."""
    until(stage.postgres.is_alive)
    stage.postgres.crash(SIGKILL)


def kill_backend(stage: Stage, fault: Fault) -> None:
    """Kill one process of PostgreSQL that serves us: it ends all the others by itself."""
    pids = until(lambda: _backends(stage))
    victim = Random(fault.number).choice(pids)
    [process] = [each for each in stage.postgres.processes() if each.pid == victim]
    process.kill()


def end_connections(stage: Stage, _fault: Fault) -> None:
    """Let PostgreSQL end every connection of ours, as an administrator does."""
    assert until(
        lambda: _ask(stage, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")
    )


def lock(stage: Stage, fault: Fault) -> None:
    """Hold a lock that nobody can work beside, as a careless ALTER TABLE does."""
    connection = until(lambda: _connected(stage))
    assert connection is not None
    with closing(connection):
        connection.execute("LOCK TABLE kratos_sync.deliveries IN ACCESS EXCLUSIVE MODE")
        time.sleep(fault.seconds)


def fill_disk(stage: Stage, fault: Fault) -> None:
    """Leave PostgreSQL no room to write."""
    until(stage.postgres.is_alive)
    before = _failed_writes(stage)
    stage.disk.fill(stage.postgres.processes)
    try:
        time.sleep(fault.seconds)
        until(lambda: _failed_writes(stage) > before, NOTICED_SECONDS)
    finally:
        stage.disk.free(stage.postgres.processes)


def kill_broker(stage: Stage, fault: Fault) -> None:
    """Kill the broker; it comes back after a while, with what it held."""
    with stage.keepers["broker"].resting():
        stage.broker.crash()
        time.sleep(fault.seconds)


def replace_broker(stage: Stage, fault: Fault) -> None:
    """Kill the broker; it comes back after a while, and holds nothing."""
    with stage.keepers["broker"].resting():
        stage.broker.crash()
        stage.broker.forget()
        time.sleep(fault.seconds)


def wipe_broker(stage: Stage, _fault: Fault) -> None:
    """Empty the broker."""
    stage.broker.wipe()


def starve_broker(stage: Stage, fault: Fault) -> None:
    """Leave the broker no memory: it takes no messages."""
    with stage.broker.starving():
        time.sleep(fault.seconds)


def _failed_writes(stage: Stage) -> int:
    wrote = stage.postgres.wrote()
    return wrote.count("No space left on device") + wrote.count("File too large")


def _backends(stage: Stage) -> list[int]:
    rows = _ask(stage, f"SELECT pid FROM pg_stat_activity WHERE {OURS}")
    return [row["pid"] for row in rows]


def _ask(stage: Stage, statement: str) -> list[dict[str, int]]:
    with Outside(stage.url) as outside:
        return outside.ask(statement) or []


def _connected(stage: Stage) -> psycopg.Connection | None:
    try:
        return psycopg.connect(stage.url, connect_timeout=2, application_name="faults")
    except psycopg.OperationalError:
        return None
