"""The command line `kratos-sync`: one module for each command, imported when the command runs.

A command fails by raising click.ClickException: one line on stderr, exit code 1.
"""

import builtins
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from keyword import iskeyword
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from kratos_sync.api.cli.output import harmless

COMMANDS: Final = {
    "dev": "Run everything on this machine, in one terminal, until Ctrl-C.",
    "new": "Write a package NAME with two consumers, their tests and a Dockerfile.",
    "all": "Run everything but PostgreSQL: api, relay, worker and reconcile, without a broker.",
    "api": "Receive Kratos' webhooks.",
    "relay": "Dispatch due deliveries to the broker, purge, and complete erasures.",
    "worker": "Run consumers.",
    "healthcheck": "Ask a process on this machine how it is: exit code 0 if it is ready, else 1.",
    "migrate": "Bring the database schema up to this release.",
    "status": "Show backlog, lag and dead letters of each consumer.",
    "tail": "Show events and attempts as they happen, from now on until Ctrl-C.",
    "history": "Show every event of the identity ID, and what each consumer did with it.",
    "events": "List the events that consumers subscribe to, or describe the event NAME.",
    "traits": "Write the traits of the identity schema FILE as a Python type.",
    "show": "Show our copy of the identity ID.",
    "purge": "Remove old events and attempts, in small steps.",
    "delete": "Delete the identity ID, here and in Kratos.",
    "erase": "Erase all personal data recorded of the identity ID.",
    "audit": "List what people and schedules changed: who, what, why and when.",
    "failed": "List, show, retry or discard dead letters.",
    "try": "Try the consumer NAME on the recorded event EVENT_ID, and roll back.",
    "pause": "Pause the consumer NAME: deliver nothing to it until it is resumed.",
    "resume": "Resume the consumer NAME after a pause.",
    "limit": "Limit the consumer NAME, over all workers, in place of what its class says.",
    "replay": "Deliver recorded events to one consumer again.",
    "reconcile": "Compare all identities with Kratos, and repair what differs.",
    "sync": "Fetch the identities ID... from Kratos now, and record them.",
    "console": "Serve the pages for operators.",
    "hooks": "Print the hooks that make Kratos call this service for every flow and method.",
    "check": "Check a Kratos configuration for what would make webhooks missing.",
}
"""Each command with the first sentence of its help, in the order of the help.

The command `x` is the function `x` of the module `x`, which the help of all does not import; `x_`
where Python has another `x`.
"""
_MODULES: Final = {**dict.fromkeys(("pause", "resume", "limit"), "policies")}
"""The modules of commands that share one."""


def _python_name(command: str) -> str:
    return f"{command}_" if iskeyword(command) or hasattr(builtins, command) else command


@contextmanager
def _harmless_errors() -> Iterator[None]:
    try:
        yield
    except click.ClickException as error:
        error.message = harmless(error.message)  # type: ignore[misc]  # click's own show() reads it
        raise


class _CommandTable(click.Group):
    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _harmless_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _harmless_errors():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        name = _python_name(cmd_name)
        module = import_module(f"{__name__}.{_MODULES.get(cmd_name, name)}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = (name for name in COMMANDS if name.startswith(incomplete))
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=COMMANDS[name]) for name in names), *options]


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
