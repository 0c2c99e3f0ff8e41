"""The person at the command line: who it is, and whether what is asked for is meant."""

import getpass
import os
import sys

import click

from api.commands.quoting import harmless


def confirm(question: str, yes: bool) -> None:
    """Return if ``yes`` was said, or is said now at the terminal.

    Raises click.UsageError where there is no terminal to ask at, and click.Abort for any other
    answer. The question stands on stderr: stdout may be read by a machine.
    """
    if yes:
        return
    if not is_at_terminal():
        raise click.UsageError("nothing was done: without a terminal to ask at, say --yes.")
    click.confirm(harmless(question), abort=True, err=True)


def is_at_terminal() -> bool:
    """Whether a person can answer."""
    return sys.stdin.isatty()


def operator_name(given: str | None) -> str:
    """Give the name that was given, or else that of the operating system's user."""
    if given and given.strip():
        return given.strip()
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"user {os.getuid()}"
