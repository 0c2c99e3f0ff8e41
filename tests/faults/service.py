"""The service as it is deployed: an api, a relay and two workers, each behind wires of its own."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.faults import clock, consumers, effects, program
from tests.faults.kinds import API, LEASE_SECONDS, PROCESSES, WORKERS
from tests.faults.processes import ServiceProcess, end_all
from tests.faults.wires import Wire

KEY: Final = "a-key-of-no-worth"
DATABASE: Final = "faults"
WORKER_MEMORY_BYTES: Final = 1_500_000_000
"""The address space of a worker: some hundred megabytes more than it needs."""


@contextmanager
def service(
    folder: Path,
    port: int,
    database_wires: Mapping[str, Wire],
    broker_wire: Wire,
    metrics_ports: Mapping[str, int],
) -> Iterator[dict[str, ServiceProcess]]:
    """Give its processes, yet to be started; end them on leaving."""
    parent_pipe, our_end = os.pipe()
    common = {
        "PATH": os.environ["PATH"],
        "BROKER_URL": f"redis://127.0.0.1:{broker_wire.port}/0",
        "KRATOS_WEBHOOK_API_KEYS": KEY,
        "LEASE_SECONDS": str(LEASE_SECONDS),
        "LOG_FORMAT": "json",
        # Should the suite be killed, the processes end by themselves.
        "KRATOS_SYNC_PARENT_PIPE": str(parent_pipe),
        consumers.TROUBLES: str(folder / "troubles"),
        effects.ELSEWHERE: str(folder / "elsewhere"),
    }
    processes = {}
    for name in PROCESSES:
        database = f"postgresql://postgres@127.0.0.1:{database_wires[name].port}/{DATABASE}"
        environment = {
            **common,
            "DATABASE_URL": database,
            "METRICS_PORT": str(metrics_ports[name]),
            clock.CLOCK: str(folder / f"{name}.clock"),
            **({program.MEMORY: str(WORKER_MEMORY_BYTES)} if name in WORKERS else {}),
        }
        command = ["api", "--port", str(port)] if name == API else [name.partition("-")[0]]
        processes[name] = ServiceProcess(name, command, environment, folder, parent_pipe)
    try:
        yield processes
    finally:
        end_all(processes.values())
        os.close(our_end)
        os.close(parent_pipe)
