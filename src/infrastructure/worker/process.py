"""The worker process: consumes until it is stopped, and gives back what it did not finish."""

import faulthandler
import threading
import time
from datetime import timedelta
from typing import Final

import dramatiq
import structlog

from kratos_sync.application.footprint import OpenBatches
from kratos_sync.application.pipeline.logging import where
from kratos_sync.application.pipeline.retries import account_of_loss
from kratos_sync.application.ports.dead_letters import WORKER_DIED, Failures
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.application.subscriptions import CONSUMERS
from kratos_sync.infrastructure.bus import actor
from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals
from kratos_sync.infrastructure.worker.supervisor import Supervised
from kratos_sync.infrastructure.worker.watchdog import Watchdog

POLL_MILLISECONDS: Final = 1_000
"""How often workers look for messages when nothing wakes them."""
DRAIN_SECONDS: Final = 30.0
DRAIN_WHEN_REPLACED_SECONDS: Final = 10.0
ABANDON_SECONDS: Final = 2.0
CONSUMERS_MILLISECONDS: Final = 5_000
LEDGER_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.02

log = structlog.get_logger()


class WorkerProcess:
    """Dramatiq's threads under a watchdog, in a process that a supervisor replaces."""

    def __init__(
        self,
        container: Container,
        supervised: Supervised,
        threads: int | None,
        shutdown: ShutdownSignals,
    ) -> None:
        """Prepare everything that can fail. Raises UnknownPort for a consumer that cannot be made.

        The container's broker has to be there already.
        """
        faulthandler.enable()
        self._in_flight = InFlightDeliveries(supervised.memory)
        container.in_flight.override(self._in_flight)
        settings = container.settings()
        self._container, self._supervised, self._shutdown = container, supervised, shutdown
        self._watchdog: Watchdog = container.watchdog()
        self._threads: int = threads or settings.worker_threads
        self._replaced = threading.Event()
        self._broker = declared_broker(
            container,
            settings.lease,
            shutdown.requested,
            OpenBatches(self._threads, supervised.deaths),
        )
        if isinstance(self._broker, WakefulRedisBroker):
            # What a predecessor had fetched is then ours, and put back as soon as we look.
            self._broker.broker_id = supervised.name
        if self._threads > settings.database_pool_size:
            connections = settings.database_pool_size
            log.warning("threads_wait", connections=connections, threads=self._threads)

    def run(self) -> bool:
        """Consume until stopped, then drain. True if another process has to replace this one."""
        self._watchdog.start(self._make_room)
        if self._supervised.predecessor is not None:
            record_lost_deliveries(
                self._in_flight,
                self._container.failures(),
                self._supervised.predecessor,
                self._shutdown.requested,
            )
        running = dramatiq.Worker(
            self._broker, worker_threads=self._threads, worker_timeout=POLL_MILLISECONDS
        )
        if not self._shutdown.requested.is_set():
            running.start()
        log.info("worker_started", threads=self._threads)
        self._shutdown.requested.wait()
        log.info("stopping")
        replaced = self._replaced.is_set()
        seconds = DRAIN_WHEN_REPLACED_SECONDS if replaced else DRAIN_SECONDS
        drain(running, self._watchdog, self._shutdown.aborted, seconds)
        self._watchdog.stop()
        self._broker.close()
        return self._replaced.is_set()

    def _make_room(self) -> None:
        self._replaced.set()
        self._shutdown.requested.set()


def drain(
    running: dramatiq.Worker, watchdog: Watchdog, aborted: threading.Event, seconds: float
) -> None:
    """Let threads finish their deliveries in flight, for so long, and give back the rest."""

    def at_work() -> int:
        hung = watchdog.hung_threads
        return sum(thread.is_alive() and thread.ident not in hung for thread in running.workers)

    deadline = time.monotonic() + seconds
    for thread in running.workers:
        thread.stop()
    while at_work() and time.monotonic() < deadline:
        if aborted.wait(TICK_SECONDS):
            break
    if threads := at_work():
        log.warning("cut_off", threads=threads)
        watchdog.give_everything_back()
        deadline = time.monotonic() + ABANDON_SECONDS
        while at_work() and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)
    # Dramatiq would wait for those that do not come back.
    running.workers = [thread for thread in running.workers if not thread.is_alive()]
    running.stop(timeout=CONSUMERS_MILLISECONDS)


def record_lost_deliveries(
    in_flight: InFlightDeliveries, failures: Failures, how: str, stopped: threading.Event
) -> None:
    """Record as failed whatever the process before this one was consuming when it died."""
    deliveries = list(in_flight)
    log.error("worker_replaced", predecessor=how, in_flight=len(deliveries))
    for lost in deliveries:
        log.warning("attempt_lost", consumer=lost.consumer, event_id=str(lost.event_id))
        consumer = CONSUMERS.get(lost.consumer)
        if consumer is None:
            continue
        message = f"the worker's process {how} while it consumed this"
        attempt = account_of_loss(consumer, lost, WORKER_DIED, message)
        while not stopped.is_set():
            try:
                failures.record(attempt)
                break
            except (LedgerUnavailable, ConcurrencyConflict) as error:
                log.warning("ledger_unavailable", reason=str(error))
                stopped.wait(LEDGER_SECONDS)
            except Exception as error:  # noqa: BLE001  # it must not prevent the start
                log.warning("attempt_not_recorded", error=type(error).__name__, at=where(error))
                break
    if not stopped.is_set():
        in_flight.clear()


def declared_broker(
    container: Container,
    patience: timedelta,
    stopped: threading.Event,
    open_batches: OpenBatches,
) -> dramatiq.Broker:
    """Give the broker with the actor on it. Raises UnknownPort, before the first event comes."""
    container.consumers()
    broker: dramatiq.Broker = container.broker()
    actor.declare(
        broker,
        container.unit_of_work,
        container.failures(),
        container.watchdog(),
        patience=patience,
        stopped=stopped,
        open_batches=open_batches,
    )
    return broker
