"""`kratos-sync relay`."""

import threading

import click
import structlog

from api.commands.process import calm_garbage_collector, opened_container, stopped_by_signal

PURGE_STOP_SECONDS = 5.0
"""A step takes less; one that does not is rolled back, and made another time."""

log = structlog.get_logger()


@click.command()
def relay() -> None:
    """Send what is due to the broker, and purge. Run one or more."""
    stopped = stopped_by_signal()
    with opened_container() as container:
        relaying = container.relay()
        purging = threading.Thread(
            target=container.purge_schedule().run, args=(stopped,), name="purge", daemon=True
        )
        calm_garbage_collector()
        log.info("relay_started")
        purging.start()
        try:
            relaying.run(stopped)
        finally:
            stopped.set()
            purging.join(PURGE_STOP_SECONDS)
            container.broker().close()
