"""Printing for a person: sentences are folded for a terminal, and left whole for a pipe."""

import textwrap
from collections.abc import Iterable
from typing import Final

from rich.console import Console

WIDTH: Final = 250
"""Wider than any table of ours: a narrow terminal wraps its lines, and no name is ever cut."""


def console() -> tuple[Console, int]:
    """Give a console on standard output, and how wide its sentences are; tables are not folded."""
    made = Console(highlight=False, markup=False, emoji=False)
    folded = made.width if made.is_terminal else WIDTH
    made.width = WIDTH
    return made, folded


def print_list(console: Console, sentences: Iterable[str], folded: int) -> None:
    """Print sentences, each with a dash before it."""
    for each in sentences:
        console.print(fold(each, folded, "  - "))


def fold(sentence: str, width: int, before: str) -> str:
    """Fold a sentence, with something before its first line; a name is never cut in two."""
    indent = " " * len(before)
    return textwrap.fill(
        sentence, width, initial_indent=before, subsequent_indent=indent, break_on_hyphens=False
    )
