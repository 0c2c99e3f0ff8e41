"""`kratos-sync show`: our copy of an identity."""

import json
from typing import Any
from uuid import UUID

import click

from kratos_sync.api.cli import options
from kratos_sync.api.cli.history import summary_lines
from kratos_sync.api.cli.output import Styled, echo, echo_json, fields_of, indented
from kratos_sync.api.cli.process import command_container


@click.command()
@options.identity_id
@click.option("--traits", is_flag=True, help="Every column, with the person's data.")
@options.as_json
def show(identity_id: UUID, traits: bool, as_json: bool) -> None:
    """Show our copy of the identity ID.

    Its state, version and times; with --traits everything, which is personal data.
    """
    with command_container(migrated=False) as container:
        history = container.history().of(identity_id, 1)
        if history is None or history.identity is None:
            raise click.ClickException(f"There is no copy of an identity {identity_id}.")
        columns: dict[str, Any] = fields_of(history.identity)
        if traits:
            columns = container.history().copy_of(identity_id)
    if as_json:
        echo_json({"identity_id": identity_id, **columns})
        return
    echo(Styled(f"Identity {identity_id}", "bold"))
    if traits:
        echo(*indented(json.dumps(columns, indent=2, ensure_ascii=False), 2))
    else:
        echo(*(f"  {fact}" for fact in summary_lines(history.identity, history.at)))
