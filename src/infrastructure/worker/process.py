"""The worker process: consumes until it is stopped, and releases what it did not finish."""

import ctypes
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import dramatiq
import structlog

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.errors import summary
from kratos_sync.application.footprint import OpenBatches
from kratos_sync.application.pipeline.outcomes import lost_attempt
from kratos_sync.application.ports.dead_letters import WORKER_DIED, FailedAttempt, Failures
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.bus.actor import Actor
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.observability import definitions as define
from kratos_sync.infrastructure.observability.observer import UNOBSERVED, Observer
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals
from kratos_sync.infrastructure.worker.supervisor import Supervised
from kratos_sync.infrastructure.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from kratos_sync.infrastructure.bus.broker import DramatiqBroker

POLL_MILLISECONDS: Final = 1_000
"""How often a worker looks for messages when nothing wakes it."""
DRAIN_SECONDS: Final = 30.0
DRAIN_WHEN_REPLACED_SECONDS: Final = 10.0
ABANDON_SECONDS: Final = 2.0
CONSUMERS_MILLISECONDS: Final = 5_000
LEDGER_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.02

# Parameters of glibc's mallopt.
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
LARGE_BLOCK: Final = 1024 * 1024
ARENAS: Final = 2

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
        """Prepare everything that can fail; the container's broker must exist already.

        Raises InvalidApplication for a consumer that cannot be made.
        """
        return_freed_memory()
        self._in_flight = InFlightDeliveries(supervised.memory)
        container.in_flight.override(self._in_flight)
        settings = container.settings()
        self._container, self._supervised, self._shutdown = container, supervised, shutdown
        self._watchdog: Watchdog = container.watchdog()
        self._threads: int = threads or settings.worker_threads
        self._replaced = threading.Event()
        open_batches = OpenBatches(self._threads, supervised.deaths)
        self._broker = declared_broker(container, shutdown.requested, open_batches)
        self._broker.work_as(supervised.name, predecessor_died=supervised.predecessor_died)
        self._report(container.observer())
        if self._threads > settings.database_pool_size:
            connections = settings.database_pool_size
            log.warning("threads_wait", connections=connections, threads=self._threads)

    def run(self) -> bool:
        """Consume until stopped, then drain. True if another process has to replace this one."""
        requested = self._shutdown.requested
        self._watchdog.start(self.request_replacement)
        self._container.pauses().start()
        if (how := self._supervised.predecessor) is not None:
            record_lost_deliveries(
                self._in_flight,
                self._container.subscriptions(),
                self._container.failures_without_waiting(),
                how,
                requested,
                observer=self._container.observer(),
            )
        running = dramatiq.Worker(
            self._broker, worker_threads=self._threads, worker_timeout=POLL_MILLISECONDS
        )
        health = self._container.health()
        if not requested.is_set():
            running.start()
            pauses = self._container.pauses().thread
            health.watch_threads(lambda: [*running.workers, *running.consumers.values(), pauses])
            health.started()
        log.info("worker_started", threads=self._threads)
        self._shutdown.wait()
        log.info("stopping")
        replaced = self._replaced.is_set()
        health.stopping(is_replaced=replaced)
        seconds = DRAIN_WHEN_REPLACED_SECONDS if replaced else DRAIN_SECONDS
        drain(running, self._watchdog, self._shutdown.aborted, seconds)
        self._container.pauses().stop()
        self._watchdog.stop()
        self._broker.close()
        return self._replaced.is_set()

    def _report(self, observer: Observer) -> None:
        replaced = self._supervised.replacements
        observer.watch(
            define.REPLACED,
            lambda: {(each,): float(replaced.get(each, 0)) for each in define.REPLACEMENTS},
        )
        observer.watch(define.THREADS_BUSY, lambda: float(self._watchdog.busy_threads()))
        observer.watch_broker(self._broker.ping)

    def request_replacement(self) -> None:
        """Stop, for another process that replaces this one."""
        self._replaced.set()
        self._shutdown.requested.set()


def return_freed_memory() -> None:
    """Have the C library give what large events took back to the system, where it is glibc.

    By itself it keeps ever larger blocks once freed, in an arena for each thread.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_MMAP_THRESHOLD, LARGE_BLOCK)
        mallopt(_ARENA_MAX, ARENAS)


def drain(
    running: dramatiq.Worker, watchdog: Watchdog, aborted: threading.Event, seconds: float
) -> None:
    """Let threads finish their in-flight deliveries for so long, and release the rest."""

    def busy() -> int:
        hung = watchdog.hung_threads
        return sum(thread.is_alive() and thread.ident not in hung for thread in running.workers)

    deadline = time.monotonic() + seconds
    for thread in running.workers:
        thread.stop()
    while busy() and time.monotonic() < deadline:
        if aborted.wait(TICK_SECONDS):
            break
    if threads := busy():
        log.warning("cut_off", threads=threads)
        watchdog.release_everything()
        deadline = time.monotonic() + ABANDON_SECONDS
        while busy() and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)
    # Dramatiq would wait for the threads that do not come back.
    running.workers = [thread for thread in running.workers if not thread.is_alive()]
    running.stop(timeout=CONSUMERS_MILLISECONDS)


def record_lost_deliveries(
    in_flight: InFlightDeliveries,
    subscriptions: Subscriptions,
    failures: Failures,
    how: str,
    stopped: threading.Event,
    *,
    observer: Observer = UNOBSERVED,
) -> None:
    """Record as failed what the predecessor was consuming when it died.

    It waits for the ledger, so that the attempts of an event that ends its process are counted. A
    delivery whose row is locked is recorded later, in a thread: consuming does not wait for it.
    """
    deliveries = list(in_flight)
    log.error("worker_replaced", predecessor=how, in_flight=len(deliveries))
    attempts = []
    for lost in deliveries:
        log.warning("attempt_lost", consumer=lost.consumer, event_id=str(lost.event_id))
        if consumer := subscriptions.consumers.get(lost.consumer):
            message = f"the worker's process {how} while it consumed this"
            attempts.append(lost_attempt(consumer, lost, WORKER_DIED, message))
    locked = [each for each in attempts if not _record(each, failures, stopped, observer)]
    if stopped.is_set():
        return
    in_flight.clear()
    if locked:
        arguments = (locked, failures, stopped, observer)
        threading.Thread(target=_record_locked, args=arguments, name="lost", daemon=True).start()


def _record_locked(
    attempts: Sequence[FailedAttempt],
    failures: Failures,
    stopped: threading.Event,
    observer: Observer,
) -> None:
    for attempt in attempts:
        while not _record(attempt, failures, stopped, observer):
            stopped.wait(LEDGER_SECONDS)


def _record(
    attempt: FailedAttempt, failures: Failures, stopped: threading.Event, observer: Observer
) -> bool:
    """Record an attempt as soon as the ledger can be reached; False if its row is locked."""
    while not stopped.is_set():
        try:
            failures.record(attempt)
        except ConcurrencyConflict:
            return False
        except LedgerUnavailable as error:
            log.warning("ledger_unavailable", reason=str(error))
            stopped.wait(LEDGER_SECONDS)
            continue
        except Exception as error:  # noqa: BLE001  # it must not prevent the start
            log.warning("attempt_not_recorded", **summary(error))
        else:
            observer.attempt_lost(attempt)
        break
    return True


def declared_broker(
    container: Container, stopped: threading.Event, open_batches: OpenBatches
) -> "DramatiqBroker":
    """The broker with the actor on it. Raises InvalidApplication, before the first event comes."""
    container.consumers()
    broker: DramatiqBroker = container.broker()
    Actor(
        broker,
        container.subscriptions(),
        container.unit_of_work,
        container.failures(),
        container.watchdog(),
        ledger_timeout=container.settings().lease,
        stopped=stopped,
        open_batches=open_batches,
        pauses=container.pauses(),
        release=container.claims().release,
        deliver=container.deliver(),
        observer=container.observer(),
    ).declare()
    return broker
