"""The memory of the smallest deployment: `kratos-sync all`, and PostgreSQL as Compose sets it.

``python -m benchmarks.small --program PATH``: idle, accepting webhooks as fast as wrk sends them,
and delivering a backlog. PATH is a `kratos-sync` that is installed as in the image, without what
developers need: structlog and dependency-injector import what they find. PostgreSQL's settings are
those of ``deploy/compose.small.yml``. It needs wrk.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import sleep
from typing import Final

import psutil
import yaml

from benchmarks.filling import SYNC, fill
from benchmarks.measures.deliver import Backlog, backlog, check, until_none_is_left
from benchmarks.population import population
from benchmarks.stage import Deployment, Stage, raised
from benchmarks.watch import MEGABYTE, Watch
from benchmarks.wrk import load, require_wrk, write_bodies
from tests.parts import part_of

COMPOSE: Final = Path(__file__).parents[1] / "deploy/compose.small.yml"
EVENTS: Final = 50_000
PEOPLE: Final = 2_000
SECONDS: Final = 15
IDLE_SECONDS: Final = 10


def settings_of_postgres() -> dict[str, str]:
    """PostgreSQL's settings in the small deployment."""
    command = yaml.safe_load(COMPOSE.read_text())["services"]["postgres"]["command"]
    return dict(each.split("=", 1) for each in command if "=" in each)


def watched(stage: Stage, service: Deployment) -> Watch:
    """Watch all of it."""
    postgres = stage.server_pids()["postgres"]
    return Watch({**service.pids(), "PostgreSQL": postgres})


def idle(stage: Stage, program: Sequence[str]) -> Watch:
    """Nothing happens."""
    with stage.deployed() as service:
        service.start_without_broker(program)
        sleep(IDLE_SECONDS)
        with watched(stage, service) as watch:
            sleep(IDLE_SECONDS)
        supervisor = psutil.Process(service.pids()["all"])
        for each in (supervisor, *supervisor.children()):
            name = part_of(each) or "supervisor"
            print(f"{name} {each.memory_full_info().pss / MEGABYTE:.0f} MB, ", end="")
        print("of which shared memory is counted once")
    return watch


def accepting(stage: Stage, program: Sequence[str]) -> Watch:
    """Webhooks come as fast as they are answered."""
    bodies = write_bodies(stage.folder, population(PEOPLE).calls)
    with stage.deployed() as service:
        service.start_without_broker(program)
        with watched(stage, service) as watch:
            print(f"{load(service.address, bodies, SECONDS)['rate']:,.0f} webhooks/s")
    return watch


def delivering(stage: Stage, program: Sequence[str], waiting: Backlog) -> Watch:
    """A backlog is delivered."""
    with stage.deployed() as service:
        fill(service.database_url, waiting.events, (SYNC,), waiting.at, in_order=False)
        service.start_without_broker(program)
        with watched(stage, service) as watch:
            until_none_is_left(service)
        check(service, waiting, (SYNC,))
    print(f"{waiting.healthy / watch.seconds:,.0f} events/s")
    return watch


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="`kratos-sync`, installed as in the image")
    program = [parser.parse_args().program]
    require_wrk()
    waiting = backlog(EVENTS)
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        raised(Path(folder), settings_of_postgres()) as stage,
    ):
        for name, watch in (
            ("idle", idle(stage, program)),
            ("accepting", accepting(stage, program)),
            ("delivering", delivering(stage, program, waiting)),
        ):
            sizes = {process: of["pss_mb"] for process, of in watch.memory().items()}
            each = ", ".join(f"{process} {size:.0f} MB" for process, size in sizes.items())
            print(f"{name}: {each}; together {watch.together_mb:.0f} MB at one moment")


if __name__ == "__main__":
    main()
