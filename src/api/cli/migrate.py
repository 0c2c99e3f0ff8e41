"""`kratos-sync migrate`: brings the database schemas up to this release and its application."""

import click

from kratos_sync.api.cli.output import echo
from kratos_sync.api.cli.process import command_container


@click.command()
def migrate() -> None:
    """Bring the database schema up to this release.

    Then the schema of your application, if it has migrations, and its subscriptions. Safe to run
    again, and by many at once.
    """
    from kratos_sync.infrastructure import migrations

    with command_container(migrated=False) as container:
        engine, application = container.engine(), container.application()
        own = None
        if application is not None and application.migrations is not None:
            own = migrations.History.at(application.migrations)
        _report("The schema", *migrations.migrate(engine))
        if own is not None:
            _report(f"The schema {own.schema}", *migrations.migrate_application(engine, own))
        for subscription in container.kept_subscriptions().add_missing():
            echo(f"{subscription.consumer} is now subscribed to {subscription.event}.")


def _report(what: str, before: str | None, after: str | None) -> None:
    if before == after:
        echo(f"{what} is at {after or 'no revision'}: nothing to do.")
    else:
        echo(f"{what} went from {before or 'nothing'} to {after}.")
