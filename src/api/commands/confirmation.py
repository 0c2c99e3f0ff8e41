"""Asking before something is done that cannot be taken back."""

import sys

import click


def confirm(question: str, yes: bool) -> None:
    """Return if ``yes`` was said, or is said now at the terminal.

    Raises click.UsageError where there is no terminal to ask at, and click.Abort for any other
    answer. The question stands on stderr: stdout may be read by a machine.
    """
    if yes:
        return
    if not is_at_terminal():
        raise click.UsageError("nothing was done: without a terminal to ask at, say --yes.")
    click.confirm(question, abort=True, err=True)


def is_at_terminal() -> bool:
    """Whether a person can answer."""
    return sys.stdin.isatty()
