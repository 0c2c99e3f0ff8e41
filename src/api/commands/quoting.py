"""Whatever a command prints goes through here or `terminal`, so that it steers no terminal.

What others wrote stands in it: states, names of events, consumers and hooks, errors, reasons.
"""

import json
from typing import Final

import click

REPLACED: Final = "\N{REPLACEMENT CHARACTER}"


def harmless(line: str) -> str:
    """Give a line without what a terminal would take for more than text, or for another line."""
    return printable(line.expandtabs())


def printable(line: str) -> str:
    """Likewise, of the same length."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else " " if c == "\t" else REPLACED for c in line)


def indented(text: str, margin: int) -> list[str]:
    """Give the lines of a text, each harmless, with a margin of so many spaces."""
    return [f"{' ' * margin}{harmless(line)}" for line in text.splitlines()]


def echo(*lines: str, err: bool = False) -> None:
    """Print lines, made harmless; what looks like the end of one within it is none."""
    for line in lines:
        click.echo(harmless(line), err=err)


def echo_json(document: object, indent: int | None = None) -> None:
    """Print JSON, in ASCII without control characters."""
    click.echo(json.dumps(document, indent=indent).replace("\x7f", "\\u007f"))


def without_control(error: click.ClickException) -> click.ClickException:
    """Give the error with a message of one harmless line."""
    error.message = harmless(error.message)  # type: ignore[misc]  # click's own show() reads it
    return error
