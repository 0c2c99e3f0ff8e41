"""`kratos-sync migrate`."""

import click

from kratos_sync.api.cli.output import echo
from kratos_sync.api.cli.process import expected_errors, opened_container
from kratos_sync.infrastructure import migrations


@click.command()
def migrate() -> None:
    """Bring the database schema up to this release; safe to run again, and by many at once."""
    with opened_container(migrated=False) as container, expected_errors():
        try:
            before, after = migrations.migrate(container.engine())
        except migrations.MigrationBlocked as error:
            raise click.ClickException(f"Not done: {error}.") from None
    if before == after:
        echo(f"The schema is at {after}: nothing to do.")
    else:
        echo(f"The schema went from {before or 'nothing'} to {after}.")
