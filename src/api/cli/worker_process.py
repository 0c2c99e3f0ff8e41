"""The process that consumes, as `kratos-sync worker` and `kratos-sync all` have it."""

import os
import sys
from typing import NoReturn

from kratos_sync.api.cli.process import expected_errors, wait_for_database
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.worker.process import WorkerProcess
from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals
from kratos_sync.infrastructure.worker.supervisor import REPLACE_ME, Supervised


def prepared(
    container: Container, supervised: Supervised, threads: int | None, shutdown: ShutdownSignals
) -> WorkerProcess | None:
    """Prepare it as soon as the database can be used; None if that was not to be.

    Raises click.ClickException.
    """
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
