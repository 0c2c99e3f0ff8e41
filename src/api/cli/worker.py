"""`kratos-sync worker`."""

import click

from kratos_sync.infrastructure.worker.supervisor import ABORT, supervise


@click.command()
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; WORKER_THREADS if not given.")
def worker(threads: int | None) -> None:
    """Run consumers. Run as many as needed, one or two for each core.

    They run in a process beside this one, which replaces it when it dies or hangs.
    """
    supervised = supervise()
    # Imported late, so that the supervising process stays small.
    from kratos_sync.api.cli.process import freeze_garbage_collector, opened_container
    from kratos_sync.api.cli.worker_process import exit_to_be_replaced, prepared
    from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals

    shutdown = ShutdownSignals(abort_signal=ABORT).install()
    with opened_container(
        stopped=shutdown.requested, process="worker", supervised=supervised
    ) as container:
        process = prepared(container, supervised, threads, shutdown)
        if process is None:
            return
        freeze_garbage_collector()
        is_replaced = process.run()
    if is_replaced:
        exit_to_be_replaced()
