"""Reconciling with a great many identities: ``python -m benchmarks.reconciling``.

A stand-in of Kratos' Admin API serves pages as fast as it can, in a process of its own; a real
PostgreSQL holds the same people. Measured are the command itself, its memory and its requests.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import psutil
import psycopg
from pydantic import SecretStr

from benchmarks.commands import ROOT, program
from benchmarks.filling import hurried, settle, without_indexes
from benchmarks.report.scaling import publish
from kratos_sync.infrastructure.embedded import EmbeddedPostgres
from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.postgres.engine import connect
from tests.kratos.population import Population

SEEDED_AT_ONCE: Final = 20_000
APART: Final = 1_000_003
"""So far apart are people stored one after the other: a prime, so that each is stored once."""
LOOK_SECONDS: Final = 0.05
# A row as the service stores an answer of the Admin API.
STORE: Final = """
    INSERT INTO kratos_sync.kratos_identities
        (id, schema_id, schema_url, state, state_changed_at, traits, verifiable_addresses,
         recovery_addresses, metadata_public, metadata_admin, created_at, updated_at, exact_at,
         exact_numbers, synced_at, seen_alive_at, version, footprint)
    SELECT p.id, p.schema_id, p.schema_url, p.state, p.state_changed_at, p.traits,
           p.verifiable_addresses, p.recovery_addresses, e -> 'metadata_public',
           e -> 'metadata_admin', p.created_at, p.updated_at, p.updated_at, '{}', now(), now(),
           1, 7088
    FROM jsonb_array_elements(convert_from(%s, 'UTF8')::jsonb) AS listed (e),
         jsonb_populate_record(NULL::kratos_sync.kratos_identities, e) AS p
"""


def seed(url: str, number: int) -> None:
    """Store the whole population as it would be after its first webhooks and a reconciliation."""
    starts = range(0, number, SEEDED_AT_ONCE)
    with (
        hurried(url),
        without_indexes(url, "kratos_identities", keys=True),
        ProcessPoolExecutor() as processes,
    ):
        for _ in processes.map(partial(_seed_some, url, number), starts):
            pass
    settle(url, "kratos_identities")


def _seed_some(url: str, number: int, start: int) -> None:
    population = Population(number)
    numbers = range(start, min(start + SEEDED_AT_ONCE, number))
    listed = [population.document(each * APART % number) for each in numbers]
    with psycopg.connect(url) as connection:
        connection.execute(STORE, [b"[" + b",".join(listed) + b"]"])


@contextmanager
def kratos(*arguments: str) -> Iterator[str]:
    """Serve a population; give the URL."""
    command = [sys.executable, "-m", "tests.kratos.admin_stand_in", *arguments]
    with subprocess.Popen(  # noqa: S603
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def reconcile(environment: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    """Run the command; give what it said, its time and its greatest memory."""
    command = [*program(), "reconcile", "--json", *arguments]
    began = time.monotonic()
    with subprocess.Popen(  # noqa: S603
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        peak = _Peak(process.pid)
        assert process.stdout is not None  # noqa: S101
        said = process.stdout.read()
        code = process.wait(60)
    peak.join()
    return {
        **json.loads(said),
        "exit": code,
        "whole_seconds": round(time.monotonic() - began, 1),
        "megabytes": round(peak.most / 1e6),
    }


class _Peak(threading.Thread):
    """The greatest memory of a process, looked at until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self._process = psutil.Process(pid)
        self.start()

    def run(self) -> None:
        try:
            while True:
                self.most = max(self.most, self._process.memory_info().rss)
                time.sleep(LOOK_SECONDS)
        except psutil.Error:
            return


@click.command()
@click.option("--identities", default=1_000_000, show_default=True)
@click.option("--changed-every", default=10_000, show_default=True)
@click.option("--missing-every", default=200_000, show_default=True)
@click.option("--only", multiple=True, help="A run by its name; all by default.")
@click.option("--output", type=click.Path(path_type=Path), help="A file for the figures.")
def main(
    identities: int,
    changed_every: int,
    missing_every: int,
    only: tuple[str, ...],
    output: Path | None,
) -> None:
    """Reconcile a population that is unchanged, and one that is not."""
    with tempfile.TemporaryDirectory(prefix="reconciling-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedPostgres(Path(folder) / "postgresql") as postgres:
            engine = connect(SecretStr(postgres.url), 2)
            migrate(engine)
            engine.dispose()
            began = time.monotonic()
            seed(postgres.url, identities)
            print(f"{identities:,} identities stored in {time.monotonic() - began:.0f} s")
            environment = {"DATABASE_URL": postgres.url, "BROKER_URL": "redis://127.0.0.1:1"}
            population = ("--identities", str(identities))
            changed = ("--changed-every", str(changed_every), "--missing-every", str(missing_every))
            runs = {
                "unchanged, dry run": ((), ("--dry-run",)),
                "unchanged": ((), ()),
                "changed, dry run": (changed, ("--dry-run",)),
                "changed": (changed, ()),
                "another Kratos": (("--seed", "1"), ("--dry-run",)),
            }
            figures = {}
            for name in only or runs:
                there, arguments = runs[name]
                with kratos(*population, *there) as url:
                    figures[name] = reconcile({**environment, "KRATOS_ADMIN_URL": url}, *arguments)
                _print(name, figures[name])
    if output is not None:
        publish(figures, output)


def _print(name: str, said: dict[str, Any]) -> None:
    rate = said["identities"] / max(said["seconds"], 0.001)
    print(
        f"{name:<20} {said['identities']:>9,} compared in {said['seconds']:6.1f} s"
        f" ({rate:,.0f}/s), {said['megabytes']} MB, {said['pages']:,} pages;"
        f" missing {said['missing']:,}, stale {said['stale']:,}, unseen {said['unseen']:,},"
        f" gone {said['gone']:,}; {said['outcome']} (exit {said['exit']})",
        flush=True,
    )


if __name__ == "__main__":
    main()
