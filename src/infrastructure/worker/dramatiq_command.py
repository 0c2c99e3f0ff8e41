"""Workers under Dramatiq's own command line instead of `kratos-sync worker`.

    dramatiq kratos_sync.infrastructure.worker.dramatiq_command:set_up

It consumes, retries and stops as well. What it does not promise: one process that dies or hangs
ends all of them, what they had in flight is not recorded as failed, and their leases run out
before it is tried again.
"""

import os
import threading

import dramatiq

from kratos_sync.application.footprint import OpenBatches
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.migrations import require_schema
from kratos_sync.infrastructure.telemetry import configure_logging
from kratos_sync.infrastructure.worker.process import declared_broker
from kratos_sync.infrastructure.worker.watchdog import Watchdog


def set_up() -> None:
    """Set up Dramatiq's global broker, before Dramatiq forks."""
    container = Container()
    settings = container.settings()
    configure_logging(settings.log_format, settings.log_level)
    require_schema(container.engine())
    open_batches = OpenBatches(settings.worker_threads)
    broker = declared_broker(container, settings.lease, threading.Event(), open_batches)
    broker.add_middleware(_Watching(container.watchdog()))
    dramatiq.set_broker(broker)
    # A connection made before the fork must not be shared by what comes after.
    container.engine().dispose()


class _Watching(dramatiq.Middleware):
    """Starts the watchdog in each of Dramatiq's processes; one that hangs ends, and so they all."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def after_worker_boot(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        self._watchdog.start(self._end)

    def _end(self) -> None:
        self._watchdog.give_everything_back()
        os._exit(1)
