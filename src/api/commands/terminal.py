"""Printing for a person: sentences are folded for a terminal, and left whole for a pipe.

What is printed is made harmless here: a string, a text or a cell is one line, whatever is in it.
"""

import textwrap
from collections.abc import Iterable
from typing import Any, Final

from rich import table
from rich.console import Console
from rich.text import Text

from api.commands.quoting import harmless, printable

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
