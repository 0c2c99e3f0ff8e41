"""`kratos-sync relay`."""

import click
import structlog

from api.commands.process import calm_garbage_collector, opened_container, stopped_by_signal

log = structlog.get_logger()


@click.command()
def relay() -> None:
    """Send what is due in the ledger to the broker. Run one or more."""
    stopped = stopped_by_signal()
    with opened_container() as container:
        relaying = container.relay()
        calm_garbage_collector()
        log.info("relay_started")
        try:
            relaying.run(stopped)
        finally:
            container.broker().close()
