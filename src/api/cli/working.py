"""The worker's process: started by its supervisor, replaced when it dies or hangs."""

import faulthandler
import os
import signal
import sys
import threading
import time
from datetime import timedelta

import dramatiq
import structlog

from kratos_sync.api.cli.process import (
    LOOK_SECONDS,
    calm_garbage_collector,
    expected_errors,
    opened_container,
    when_there,
)
from kratos_sync.api.cli.supervisor import HURRY, REPLACE_ME, Supervised
from kratos_sync.application.footprint import OpenBatches
from kratos_sync.application.pipeline.logging import where
from kratos_sync.application.pipeline.retries import account_of_loss
from kratos_sync.application.ports.dead_letters import WORKER_DIED
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.application.subscriptions import CONSUMERS
from kratos_sync.infrastructure.bus import actor
from kratos_sync.infrastructure.bus.redis import WakefulRedisBroker
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.migrations import require_schema
from kratos_sync.infrastructure.telemetry import configure_logging
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
from kratos_sync.infrastructure.worker.watchdog import Watchdog

# Workers are woken; this is how often they look when nothing wakes them.
POLL_MILLISECONDS = 1_000
STOP_SECONDS = 30.0
REPLACED_WITHIN_SECONDS = 10.0
CUT_OFF_SECONDS = 2.0
REST_MILLISECONDS = 5_000
LOOK_AT_THREADS_SECONDS = 0.02

log = structlog.get_logger()


class Wishes:
    """What was asked of this process: to stop, to stop at once, to make room for another."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.hurried = threading.Event()
        self.replaced = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT, HURRY):
            # From a thread: the one that the signal interrupts may hold an event's lock.
            signal.signal(
                number, lambda heard, _: threading.Thread(target=self._hear, args=(heard,)).start()
            )

    def replace(self) -> None:
        """Make room for another process: this one has a thread that nothing ends."""
        self.replaced.set()
        self.stopped.set()

    def _hear(self, number: int) -> None:
        if number == HURRY:
            self.hurried.set()
        self.stopped.set()


def work(threads: int | None, supervised: Supervised) -> None:
    """Consume until asked to stop, then finish what is in hand and give back the rest."""
    faulthandler.enable()
    wishes, hands = Wishes(), InFlightDeliveries(supervised.memory)
    with opened_container(stopped=wishes.stopped) as container:
        container.in_flight.override(hands)
        settings, watchdog = container.settings(), container.watchdog()
        threads = threads or settings.worker_threads
        with expected_errors():
            # What its queues are called stands in the database, which may be away.
            if when_there(container.broker, wishes.stopped) is None:
                return
            open_batches = OpenBatches(threads, supervised.deaths)
            broker = _declared(container, settings.lease, wishes.stopped, open_batches)
        if isinstance(broker, WakefulRedisBroker):
            # What a predecessor had fetched is then ours, and put back as soon as we look.
            broker.broker_id = supervised.name
        watchdog.start(wishes.replace)
        if supervised.predecessor is not None:
            _bury(container, supervised.predecessor, wishes.stopped)
        if threads > settings.database_pool_size:
            log.warning("threads_wait", connections=settings.database_pool_size, threads=threads)
        running = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=POLL_MILLISECONDS)
        calm_garbage_collector()
        if not wishes.stopped.is_set():
            running.start()
        log.info("worker_started", threads=threads)
        wishes.stopped.wait()
        log.info("stopping")
        wind_up(running, watchdog, wishes)
        watchdog.stop()
        broker.close()
    if wishes.replaced.is_set():
        sys.stderr.flush()
        os._exit(REPLACE_ME)


def wind_up(running: dramatiq.Worker, watchdog: Watchdog, wishes: Wishes) -> None:
    """Let threads finish what they have in hand, within bounds of time, and give back the rest."""
    seconds = REPLACED_WITHIN_SECONDS if wishes.replaced.is_set() else STOP_SECONDS
    deadline = time.monotonic() + seconds
    for thread in running.workers:
        thread.stop()
    while _at_work(running, watchdog) and time.monotonic() < deadline:
        if wishes.hurried.wait(LOOK_AT_THREADS_SECONDS):
            break
    if _at_work(running, watchdog):
        log.warning("cut_off", threads=_at_work(running, watchdog))
        watchdog.give_everything_back()
        deadline = time.monotonic() + CUT_OFF_SECONDS
        while _at_work(running, watchdog) and time.monotonic() < deadline:
            time.sleep(LOOK_AT_THREADS_SECONDS)
    # Dramatiq would wait for those that do not come back.
    running.workers = [thread for thread in running.workers if not thread.is_alive()]
    running.stop(timeout=REST_MILLISECONDS)


def _at_work(running: dramatiq.Worker, watchdog: Watchdog) -> int:
    hung = watchdog.hung_threads
    return sum(thread.is_alive() and thread.ident not in hung for thread in running.workers)


def _bury(container: Container, how: str, stopped: threading.Event) -> None:
    """Write down what the process before this one died of: whatever it was consuming then."""
    hands, failures = container.in_flight(), container.failures()
    log.error("worker_replaced", predecessor=how, in_flight=len(list(hands)))
    for lost in list(hands):
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
                stopped.wait(LOOK_SECONDS)
            except Exception as error:  # noqa: BLE001  # nothing of the dead may keep us from living
                log.warning("attempt_not_recorded", error=type(error).__name__, at=where(error))
                break
    if not stopped.is_set():
        hands.clear()


def set_up_dramatiq() -> None:
    """Set up Dramatiq's global broker for its own command line, which forks and supervises."""
    container = Container()
    settings = container.settings()
    configure_logging(settings.log_format, settings.log_level)
    require_schema(container.engine())
    open_batches = OpenBatches(settings.worker_threads)
    broker = _declared(container, settings.lease, threading.Event(), open_batches)
    broker.add_middleware(_Watching(container.watchdog()))
    dramatiq.set_broker(broker)
    # Dramatiq forks: a connection made before must not be shared by what comes after.
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


def _declared(
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
