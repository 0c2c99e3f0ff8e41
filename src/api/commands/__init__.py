"""The command line `kratos-sync`: one module for each command, loaded when it is called for.

A command says that it failed by raising click.ClickException: one line on stderr, exit code 1.
"""

import os
from importlib import import_module
from typing import Any

import click

from api.commands.quoting import without_control

COMMANDS = {
    "dev": "api.commands.dev:dev",
    "api": "api.commands.api:api",
    "relay": "api.commands.relay:relay",
    "worker": "api.commands.worker:worker",
    "migrate": "api.commands.migrate:migrate",
    "status": "api.commands.status:status",
    "history": "api.commands.history:history",
    "purge": "api.commands.purge:purge",
    "delete": "api.commands.delete:delete",
    "erase": "api.commands.erase:erase",
    "failed": "api.commands.failed:failed",
    "replay": "api.commands.replay:replay",
    "reconcile": "api.commands.reconcile:reconcile",
    "sync": "api.commands.sync:sync",
    "hooks": "api.commands.hooks:hooks",
    "check": "api.commands.check:check",
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
    from api.commands import lifeline

    lifeline.hold(os.environ)
