"""`kratos-sync relay`."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click
import structlog

from kratos_sync.api.cli.observing import ledger_export
from kratos_sync.api.cli.process import expected_errors, freeze_garbage_collector, opened_container
from kratos_sync.infrastructure.worker.shutdown import exit_when_stopped

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container

JOIN_SECONDS = 5.0
"""Longer than a step; one that takes longer is rolled back and repeated later."""

log = structlog.get_logger()


@click.command()
def relay() -> None:
    """Dispatch due deliveries to the broker, purge, and complete erasures. Run one or more."""
    stopped = exit_when_stopped()
    with opened_container(stopped=stopped, process="relay") as container:
        if stopped.is_set():
            return
        with expected_errors():
            container.kept_subscriptions().add_missing()
            relaying = container.relay()
        freeze_garbage_collector()
        with closing(container.broker()), scheduled(container, stopped):
            log.info("relay_started")
            health = container.health()
            health.started()
            try:
                relaying.run(stopped)
            finally:
                health.stopping()


@contextmanager
def scheduled(container: "Container", stopped: threading.Event) -> Iterator[None]:
    """Run what a relay does beside dispatching, in threads, and end it on leaving."""
    schedules = {
        "erase": container.erasure_schedule().run,
        "timelines": container.timeline_watch().run,
        **ledger_export(container),
    }
    if container.settings().purge_every is not None:
        schedules["purge"] = container.purge_schedule().run
    threads = [
        threading.Thread(target=run, args=(stopped,), name=name, daemon=True)
        for name, run in schedules.items()
    ]
    for thread in threads:
        thread.start()
    container.health().watch_threads(lambda: [] if stopped.is_set() else threads)
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join(JOIN_SECONDS)
