"""Whatever a command prints goes through here or `terminal`, so that it steers no terminal.

What others wrote stands in it: states, names of events, consumers and hooks, errors, reasons.
"""

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click
from rich import table
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

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


WIDTH: Final = 250
"""Wider than any table of ours: a narrow terminal wraps its lines, and no name is ever cut."""


class HarmlessConsole(Console):
    """Prints lines, each given as a string or a text, and tables of the kind below."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(
            stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap
        )

    def print(self, *objects: Any, **options: Any) -> None:
        """Print them, as `rich` does."""
        super().print(*map(_line, objects), **options)


class Table(table.Table):
    """A table without lines, whose cells are made harmless."""

    def __init__(self) -> None:
        super().__init__(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of cells, each a string or a text."""
        super().add_row(*map(_line, cells), **options)


def _line(printed: object) -> Text | Table | str:
    match printed:
        case Table():
            return printed
        case Text():
            line = printed.copy()
            line.plain = printable(line.plain)
            return line
        case _:
            return harmless(str(printed))


def console() -> tuple[HarmlessConsole, int]:
    """Give a console on standard output, and how wide its sentences are; tables are not folded."""
    made = HarmlessConsole()
    folded = made.width if made.is_terminal else WIDTH
    made.width = WIDTH
    return made, folded


def uncut_console(*, stderr: bool = False) -> HarmlessConsole:
    """Give a console that folds nothing and cuts nothing."""
    return HarmlessConsole(stderr=stderr, soft_wrap=True)


def print_list(console: HarmlessConsole, sentences: Iterable[str], folded: int) -> None:
    """Print sentences, each with a dash before it."""
    for each in sentences:
        for line in fold(each, folded, "  - "):
            console.print(line)


def fold(sentence: str, width: int, before: str) -> list[str]:
    """Fold a sentence, with something before its first line; a name is never cut in two."""
    indent = " " * len(before)
    return textwrap.wrap(
        harmless(sentence),
        width,
        initial_indent=before,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give what is told how many are done so far; on a terminal it shows a bar, on stderr."""
    console = HarmlessConsole(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
    )
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(harmless(what), total=total)
        yield lambda done: bar.update(task, completed=done)


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """Say it."""
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")
