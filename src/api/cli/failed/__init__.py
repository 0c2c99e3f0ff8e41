"""`kratos-sync failed`: dead letters, which are deliveries that failed for good.

What the commands print with ``--json`` stands in the modules that they come from.
"""

import click

from kratos_sync.api.cli.failed.decisions import discard, retry
from kratos_sync.api.cli.failed.listing import list_
from kratos_sync.api.cli.failed.show import show


@click.group()
def failed() -> None:
    """Look at dead letters, retry or discard them.

    A delivery whose last attempt failed is a dead letter: it is kept, and not tried again, until
    somebody retries or discards it.
    """


for _command in (list_, show, retry, discard):
    failed.add_command(_command)
