"""Workers under Dramatiq's own command line instead of `kratos-sync worker`.

    dramatiq kratos_sync.infrastructure.worker.dramatiq_command:set_up

They consume, retry and stop as well. But one process that dies or hangs ends all of them, and its
in-flight deliveries are not recorded as failed: they are retried when their leases run out.
"""

import os
import threading

import dramatiq

from kratos_sync.application.footprint import OpenBatches
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.ledger.policies import Pauses
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
    broker = declared_broker(container, threading.Event(), OpenBatches(settings.worker_threads))
    broker.add_middleware(_Watching(container.watchdog(), container.pauses()))
    dramatiq.set_broker(broker)
    # Forked processes must not share a connection.
    container.engine().dispose()


class _Watching(dramatiq.Middleware):
    """Starts the watchdog in each of Dramatiq's processes. A process with a hung thread exits."""

    def __init__(self, watchdog: Watchdog, pauses: Pauses) -> None:
        self._watchdog = watchdog
        self._pauses = pauses

    def after_worker_boot(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        self._watchdog.start(self._end)
        self._pauses.start()

    def _end(self) -> None:
        self._watchdog.release_everything()
        os._exit(1)
