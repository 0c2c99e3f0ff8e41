"""`kratos-sync worker`, and the same for Dramatiq's own command line."""

import click
import dramatiq
import structlog

from api.commands.process import (
    calm_garbage_collector,
    expected_errors,
    opened_container,
    stopped_by_signal,
)
from infrastructure.bus import actor
from infrastructure.container import Container
from infrastructure.migrations import require_schema
from infrastructure.telemetry import configure_logging

# Workers are woken; this is how often they look when nothing wakes them.
POLL_MILLISECONDS = 1_000
STOP_MILLISECONDS = 30_000

log = structlog.get_logger()


@click.command()
@click.option("--threads", type=click.IntRange(1, 64), help="Threads; WORKER_THREADS if not given.")
def worker(threads: int | None) -> None:
    """Let consumers consume. Run as many as needed, one or two for each core."""
    stopped = stopped_by_signal()
    with opened_container() as container:
        with expected_errors():
            broker = _declared(container)
        threads = threads or container.settings().worker_threads
        running = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=POLL_MILLISECONDS)
        calm_garbage_collector()
        running.start()
        log.info("worker_started", threads=threads)
        stopped.wait()
        running.stop(timeout=STOP_MILLISECONDS)
        broker.close()


def dramatiq_broker() -> None:
    """Set up Dramatiq's global broker, for `dramatiq api.commands.worker:dramatiq_broker`."""
    container = Container()
    settings = container.settings()
    configure_logging(settings.log_format, settings.log_level)
    require_schema(container.engine())
    dramatiq.set_broker(_declared(container))
    # Dramatiq forks: a connection made before must not be shared by what comes after.
    container.engine().dispose()


def _declared(container: Container) -> dramatiq.Broker:
    """Give the broker with the actor on it. Raises UnknownPort, before the first event comes."""
    container.consumers()
    broker: dramatiq.Broker = container.broker()
    actor.declare(broker, container.unit_of_work, container.failures())
    return broker
