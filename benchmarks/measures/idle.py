"""What the service costs while nothing happens."""

from time import sleep
from typing import Any

from benchmarks import statements
from benchmarks.stage import Stage
from benchmarks.watch import SERVERS, Watch

CALM_SECONDS = 3


def idle(stage: Stage, seconds: int) -> dict[str, Any]:
    """Run all three processes and give them nothing to do for so long."""
    with stage.deployed() as service:
        service.start_all()
        sleep(CALM_SECONDS)
        statements.forget(service.database_url)
        with Watch({**service.pids(), **stage.server_pids()}) as watch:
            sleep(seconds)
        asked = statements.counted(service.database_url)
    percent = {name: 100 * cpu / watch.seconds for name, cpu in watch.cpu_seconds.items()}
    ours = sum(cpu for name, cpu in percent.items() if name not in SERVERS)
    return {
        "seconds": seconds,
        "percent_of_a_core": round(ours, 2),
        "percent_by_process": {name: round(cpu, 2) for name, cpu in percent.items()},
        "queries_per_second": round(asked["queries"] / watch.seconds, 2),
        "statements_per_second": round(asked["statements"] / watch.seconds, 2),
        "memory": watch.memory(),
    }
