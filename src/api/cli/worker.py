"""`kratos-sync worker`."""

import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from kratos_sync.infrastructure.worker.supervisor import (
    ABORT,
    REPLACE_ME,
    Supervised,
    supervise,
    taken_over,
)

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container
    from kratos_sync.infrastructure.worker.process import WorkerProcess
    from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals


@click.command()
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; WORKER_THREADS if not given.")
def worker(threads: int | None) -> None:
    """Run consumers. Run as many as needed, one or two for each core.

    They run in a process beside this one, which replaces it when it dies or hangs.
    """
    supervised = taken_over(os.environ)
    if supervised is None:
        raise SystemExit(supervise())
    # Imported late, so that the supervising process stays small.
    from kratos_sync.api.cli.process import freeze_garbage_collector, opened_container
    from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals

    shutdown = ShutdownSignals(abort_signal=ABORT).install()
    with opened_container(
        stopped=shutdown.requested, process="worker", is_successor=supervised.is_successor
    ) as container:
        process = prepared(container, supervised, threads, shutdown)
        if process is None:
            return
        freeze_garbage_collector()
        is_replaced = process.run()
    if is_replaced:
        exit_to_be_replaced()


def prepared(
    container: "Container", supervised: Supervised, threads: int | None, shutdown: "ShutdownSignals"
) -> "WorkerProcess | None":
    """Prepare a worker as soon as the database can be used; None if that was not to be."""
    from kratos_sync.api.cli.process import expected_errors, wait_for_database
    from kratos_sync.infrastructure.worker.process import WorkerProcess

    with expected_errors():
        # The names of its queues come from the database, which may be unavailable.
        if wait_for_database(container.broker, shutdown.requested) is None:
            return None
        kept = container.kept_subscriptions()
        if wait_for_database(kept.add_missing, shutdown.requested) is None:
            return None
        return WorkerProcess(container, supervised, threads, shutdown)


def exit_to_be_replaced() -> NoReturn:
    """Exit at once: hanging threads would prevent a normal exit."""
    sys.stderr.flush()
    os._exit(REPLACE_ME)
