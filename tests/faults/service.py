"""The service as it is deployed, each process behind wires of its own.

An api, a relay and two workers; or, without a broker, `kratos-sync all`.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.faults import clock, consumers, effects, program
from tests.faults.kinds import ALL, API, DELIVERY, LEASE_SECONDS, WORKERS
from tests.faults.processes import ServiceProcess, ServiceProcesses
from tests.faults.wires import Wire

KEY: Final = "a-key-of-no-worth"
DATABASE: Final = "faults"
WORKER_MEMORY_BYTES: Final = 1_500_000_000
"""The address space of a worker: some hundred megabytes more than it needs."""


def environment(folder: Path) -> dict[str, str]:
    """What each process of the suite has in its environment."""
    return {
        "PATH": os.environ["PATH"],
        "KRATOS_WEBHOOK_API_KEYS": KEY,
        "LOG_FORMAT": "json",
        # A worker that uses RabbitMQ has many threads, each with an address space for its memory.
        "MALLOC_ARENA_MAX": "2",
        consumers.TROUBLES: str(folder / "troubles"),
        effects.ELSEWHERE: str(folder / "elsewhere"),
    }


def clock_of(folder: Path, name: str) -> dict[str, str]:
    """Where a process looks how far its clock is ahead."""
    return {clock.CLOCK: str(folder / f"{name}.clock")}


@contextmanager
def service(
    folder: Path,
    port: int,
    database_wires: Mapping[str, Wire],
    broker_url: str | None,
    metrics_ports: Mapping[str, int],
) -> Iterator[dict[str, ServiceProcess]]:
    """Give its processes, yet to be started; end them on leaving.

    Without a broker they are parts of `kratos-sync all`, and only that is started.
    """
    common = {**environment(folder), "LEASE_SECONDS": str(LEASE_SECONDS)}
    if broker_url is not None:
        common["BROKER_URL"] = broker_url
    own = {
        name: {
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{wire.port}/{DATABASE}",
            "METRICS_PORT": str(metrics_ports[name]),
            **clock_of(folder, name),
            **({program.MEMORY: str(WORKER_MEMORY_BYTES)} if name in {*WORKERS, DELIVERY} else {}),
        }
        for name, wire in database_wires.items()
    }
    if broker_url is None:
        # Both get the api's port, and the other one takes the next.
        del own[DELIVERY]["METRICS_PORT"]
        own = {ALL: {**own[API], program.PARTS: json.dumps(own)}}
    with ServiceProcesses(folder) as processes:
        for name, its_own in own.items():
            command = [name.partition("-")[0]]
            if name in {API, ALL}:
                command += ["--port", str(port)]
            processes.add(name, command, {**common, **its_own})
        yield processes.by_name
