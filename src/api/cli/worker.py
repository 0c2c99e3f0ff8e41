"""`kratos-sync worker`."""

import os
import sys

import click

from kratos_sync.infrastructure.worker.supervisor import ABORT, REPLACE_ME, supervise, taken_over


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
    from kratos_sync.api.cli.process import (
        expected_errors,
        freeze_garbage_collector,
        opened_container,
        wait_for_database,
    )
    from kratos_sync.infrastructure.worker.process import WorkerProcess
    from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals

    shutdown = ShutdownSignals(abort_signal=ABORT).install()
    with opened_container(
        stopped=shutdown.requested,
        process="worker",
        is_successor=supervised.predecessor is not None,
    ) as container:
        with expected_errors():
            # The names of its queues come from the database, which may be unavailable.
            if wait_for_database(container.broker, shutdown.requested) is None:
                return
            kept = container.kept_subscriptions()
            if wait_for_database(kept.add_missing, shutdown.requested) is None:
                return
            process = WorkerProcess(container, supervised, threads, shutdown)
        freeze_garbage_collector()
        is_replaced = process.run()
    if is_replaced:
        # Hanging threads would prevent a normal exit.
        sys.stderr.flush()
        os._exit(REPLACE_ME)
