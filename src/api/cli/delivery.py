"""The process of `kratos-sync all` beside its api: relay, worker and reconcile in one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Final

import click
import structlog

from kratos_sync.api.cli import options
from kratos_sync.api.cli.process import freeze_garbage_collector, opened_container
from kratos_sync.api.cli.reconcile import Outcome, Reconciler, repeat
from kratos_sync.api.cli.relay import scheduled
from kratos_sync.api.cli.worker_process import exit_to_be_replaced, prepared
from kratos_sync.application.errors import summary
from kratos_sync.application.operation_scopes import ReconcileScope
from kratos_sync.application.ports.operations import How, OperationRequest
from kratos_sync.infrastructure.bus.broker import connect, is_in_memory
from kratos_sync.infrastructure.bus.memory import MemoryBroker
from kratos_sync.infrastructure.bus.relay import Relay
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.ledger.claims import MOMENT
from kratos_sync.infrastructure.observability.definitions import DELIVERY
from kratos_sync.infrastructure.settings import Settings
from kratos_sync.infrastructure.worker.shutdown import ShutdownSignals
from kratos_sync.infrastructure.worker.supervisor import ABORT, Supervised

LARGEST_PORT: Final = 65_535
CONNECTIONS_BESIDE: Final = 5
"""What the relay with its schedules and reconcile use at once, beside the worker's threads."""
AGAIN_SECONDS: Final = 1.0
JOIN_SECONDS: Final = 5.0

log = structlog.get_logger()


def deliver(supervised: Supervised, threads: int | None, every: timedelta) -> None:
    """Relay, run consumers, and reconcile so often, until a signal."""
    shutdown = ShutdownSignals(abort_signal=ABORT).install()
    stopped = shutdown.requested
    with opened_container(
        stopped=stopped,
        process=DELIVERY,
        supervised=supervised,
        adapt=partial(_adapted, threads),
    ) as container:
        if is_in_memory(url := container.settings().broker_url):
            container.broker.override(connect(url))
        process = prepared(container, supervised, threads, shutdown)
        if process is None:
            return
        relay = partial(_relay, container.relay(), supervised, stopped)
        freeze_garbage_collector()
        with (
            scheduled(container, stopped),
            _beside("relay", relay, container, stopped),
            _reconciling(container, every, shutdown),
        ):
            is_replaced = process.run()
        _release(container)
    if is_replaced:
        exit_to_be_replaced()


def _adapted(threads: int | None, settings: Settings) -> Settings:
    """The settings of this process: the api has the given port, and no thread shall starve."""
    if settings.metrics_port == LARGEST_PORT:
        raise click.UsageError("METRICS_PORT: the port after it is needed too, so choose another.")
    most_busy = max(settings.database_pool_size, threads or settings.worker_threads)
    return settings.model_copy(
        update={
            "metrics_port": settings.second_metrics_port,
            "database_pool_size": most_busy + CONNECTIONS_BESIDE,
        }
    )


def _relay(relay: Relay, supervised: Supervised, stopped: threading.Event) -> None:
    if supervised.predecessor_died:
        # Until its last leases are old enough to be known as lost.
        stopped.wait(MOMENT.total_seconds())
    log.info("relay_started")
    relay.run(stopped)


@contextmanager
def _beside(
    name: str, run: Callable[[], object], container: Container, stopped: threading.Event
) -> Iterator[None]:
    """Run this in a thread until stopped; after a crash it begins again."""

    def work() -> None:
        while not stopped.is_set():
            try:
                run()
            except Exception as error:  # noqa: BLE001  # consumers work on
                log.critical("thread_crashed", thread=name, **summary(error))
                stopped.wait(AGAIN_SECONDS)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    container.health().watch_threads(lambda: [] if stopped.is_set() else [thread])
    try:
        yield
    finally:
        stopped.set()
        thread.join(JOIN_SECONDS)


@contextmanager
def _reconciling(
    container: Container, every: timedelta, shutdown: ShutdownSignals
) -> Iterator[None]:
    """Reconcile in a thread, if it is known where Kratos' Admin API is."""
    if container.settings().kratos_admin_url is None:
        yield
        return
    scope = ReconcileScope(0, None).to_json()
    request = OperationRequest("reconcile", options.os_user(), How.SCHEDULE, None, scope=scope)
    reconciler = Reconciler(container, None, request, shutdown)
    run = partial(repeat, reconciler, every, 0, _log_outcome)
    with _beside("reconcile", run, container, shutdown.requested):
        yield


def _log_outcome(outcome: Outcome) -> None:
    found = outcome.findings
    write = log.info if outcome.went_wrong is None else log.warning
    write(
        "reconciled",
        outcome=outcome.outcome,
        seconds=round(outcome.seconds, 3),
        identities=None if found is None else found.identities,
        repairs=None if found is None else found.repairs,
    )


def _release(container: Container) -> None:
    """Release what waits in memory: so its leases need not run out."""
    broker = container.broker()
    if not isinstance(broker, MemoryBroker):
        return
    try:
        for consumer, event_ids in broker.left().items():
            container.claims().release(consumer, event_ids)
    except Exception as error:  # noqa: BLE001  # then they run out
        log.warning("not_released", **summary(error))
