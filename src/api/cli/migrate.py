"""`kratos-sync migrate`: brings the database schemas up to this release and its application."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import echo
from kratos_sync.api.cli.process import command_container
from kratos_sync.application.operations import recorded
from kratos_sync.application.ports.operations import How, OperationRequest

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container


@click.command()
@click.option(
    "--grants",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A file of SQL to run afterwards: what each database role may do.",
)
@options.by
def migrate(grants: tuple[Path, ...], by: str) -> None:
    """Bring the database schema up to this release.

    Then the schema of your application, if it has migrations, and its subscriptions. Safe to run
    again, and by many at once.
    """
    from kratos_sync.infrastructure import migrations

    scripts = {path: _text_of(path) for path in grants}
    with command_container(migrated=False) as container:
        engine, application = container.direct_engine(), container.application()
        own = None
        if application is not None and application.migrations is not None:
            own = migrations.History.at(application.migrations)
        moved = migrations.migrate(engine)
        _report("The schema", *moved)
        _record(container, by, "kratos_sync", *moved)
        if own is not None:
            own_moved = migrations.migrate_application(engine, own)
            _report(f"The schema {own.schema}", *own_moved)
            _record(container, by, own.schema, *own_moved)
        for subscription in container.kept_subscriptions().add_missing():
            echo(f"{subscription.consumer} is now subscribed to {subscription.event}.")
        for path, script in scripts.items():
            migrations.run_grants(engine, script, path.name)
            echo(f"{path.name} was run.")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise click.UsageError(f"--grants {path.name} cannot be read as text.") from None


def _record(
    container: "Container", by: str, schema: str, before: str | None, after: str | None
) -> None:
    """Record what was done, and not before: the record itself may have been made by it."""
    if before != after:
        scope = {"schema": schema, "from": before, "to": after}
        with recorded(
            container.operations(), OperationRequest("migrate", by, How.CLI, scope=scope)
        ):
            pass


def _report(what: str, before: str | None, after: str | None) -> None:
    if before == after:
        echo(f"{what} is at {after or 'no revision'}: nothing to do.")
    else:
        echo(f"{what} went from {before or 'nothing'} to {after}.")
