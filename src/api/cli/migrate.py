"""`kratos-sync migrate`: brings the database schema up to this release."""

import click

from kratos_sync.api.cli.output import echo
from kratos_sync.api.cli.process import command_container


@click.command()
def migrate() -> None:
    """Bring the database schema up to this release.

    Safe to run again, and by many at once.
    """
    from kratos_sync.infrastructure import migrations

    with command_container(migrated=False) as container:
        before, after = migrations.migrate(container.engine())
        added = container.kept_subscriptions().add_missing()
    if before == after:
        echo(f"The schema is at {after}: nothing to do.")
    else:
        echo(f"The schema went from {before or 'nothing'} to {after}.")
    for subscription in added:
        echo(f"{subscription.consumer} is now subscribed to {subscription.event}.")
