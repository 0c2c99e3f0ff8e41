"""`kratos-sync worker`, and the same for Dramatiq's own command line."""

import os

import click

from kratos_sync.api.cli import supervisor


@click.command()
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; WORKER_THREADS if not given.")
def worker(threads: int | None) -> None:
    """Let consumers consume. Run as many as needed, one or two for each core.

    What does so is a process beside this one, which replaces it when it dies or hangs.
    """
    supervised = supervisor.taken_over(os.environ)
    if supervised is None:
        raise SystemExit(supervisor.supervise())
    # Imported here: the process that only looks after this one stays small.
    from kratos_sync.api.cli.working import work

    work(threads, supervised)


def dramatiq_broker() -> None:
    """Set up Dramatiq's global broker, for `dramatiq api.cli.worker:dramatiq_broker`."""
    from kratos_sync.api.cli.working import set_up_dramatiq

    set_up_dramatiq()
