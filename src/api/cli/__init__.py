"""The command line `kratos-sync`: one module for each command, loaded when it is called for.

A command says that it failed by raising click.ClickException: one line on stderr, exit code 1.
"""

import os
from importlib import import_module
from typing import Any

import click

from kratos_sync.api.cli.output import without_control

COMMANDS = {
    "dev": "kratos_sync.api.cli.dev:dev",
    "api": "kratos_sync.api.cli.api:api",
    "relay": "kratos_sync.api.cli.relay:relay",
    "worker": "kratos_sync.api.cli.worker:worker",
    "migrate": "kratos_sync.api.cli.migrate:migrate",
    "status": "kratos_sync.api.cli.status:status",
    "history": "kratos_sync.api.cli.history:history",
    "purge": "kratos_sync.api.cli.purge:purge",
    "delete": "kratos_sync.api.cli.delete:delete",
    "erase": "kratos_sync.api.cli.erase:erase",
    "failed": "kratos_sync.api.cli.failed:failed",
    "replay": "kratos_sync.api.cli.replay:replay",
    "reconcile": "kratos_sync.api.cli.reconcile:reconcile",
    "sync": "kratos_sync.api.cli.sync:sync",
    "hooks": "kratos_sync.api.cli.hooks:hooks",
    "check": "kratos_sync.api.cli.check:check",
}


class _CommandTable(click.Group):
    def make_context(self, *args: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*args, **options)
        except click.ClickException as error:
            raise without_control(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            raise without_control(error) from None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=_CommandTable)
@click.version_option(package_name="kratos-identity-sync", prog_name="kratos-sync")
def main() -> None:
    """Keep your own copy of your Ory Kratos identities, and react to what happens to them.

    Settings come from the environment or a file .env in the current directory. To try it with
    nothing set up: kratos-sync dev.

    Exit codes: 0 done, 1 it failed, 2 wrong use.
    """
    from kratos_sync.infrastructure.worker.child_processes import end_with_parent

    end_with_parent(os.environ)
