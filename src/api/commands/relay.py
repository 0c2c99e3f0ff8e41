"""`kratos-sync relay`."""

import click

from api.commands.process import opened_container, stopped_by_signal


@click.command()
def relay() -> None:
    """Send what is due in the ledger to the broker. Run one or more."""
    stopped = stopped_by_signal()
    with opened_container() as container:
        try:
            container.relay().run(stopped)
        finally:
            container.broker().close()
