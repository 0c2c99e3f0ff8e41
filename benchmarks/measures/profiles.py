"""Where each of the three processes spends its time while it does nothing but its work."""

from typing import Any

from benchmarks.filling import fill
from benchmarks.measures.deliver import backlog
from benchmarks.population import population
from benchmarks.profiling import profiled
from benchmarks.stage import Stage
from benchmarks.wrk import load, write_bodies

PEOPLE = 2_000


def profiles(stage: Stage, events: int, seconds: int) -> dict[str, Any]:
    """Relay and worker with so many events waiting, then the api under load."""
    bodies = write_bodies(stage.folder, population(PEOPLE).calls)
    with stage.deployed() as service:
        fill(service.database_url, backlog(events).events)
        service.start_workers()
        service.start_relay()
        with profiled(service.pids(), seconds, stage.folder) as delivering:
            pass
    with stage.deployed() as service:
        service.start_api()
        with profiled(service.pids(), seconds, stage.folder) as taking_in:
            load(service.address, bodies, seconds)
    return {**delivering, **taking_in}
