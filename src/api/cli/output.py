"""What commands print: lines, rows and JSON that cannot control a terminal.

States, names, errors and reasons come from outside, so every line is made harmless here.
"""

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

import click

from kratos_sync.api.amounts import iso

REPLACED: Final = "\N{REPLACEMENT CHARACTER}"
UNFOLDED: Final = 250
"""Width of sentences where there is no terminal."""
GAP: Final = "  "


class Styled(str):
    """Harmless text in a style: `bold`, `dim` or a colour, separated by spaces."""

    __slots__ = ()

    def __new__(cls, text: str, style: str = "") -> Self:
        """Make the text harmless, and style it."""
        text, words = harmless(text), set(style.split())
        if text and words:
            colour = next(iter(words - {"bold", "dim"}), None)
            bold, dim = "bold" in words or None, "dim" in words or None
            text = click.style(text, fg=colour, bold=bold, dim=dim)
        return super().__new__(cls, text)


Line = str | Sequence[str]
"""A line, or its parts."""


def harmless(line: str) -> str:
    """Expand the tabs of a line, and replace every other control character."""
    if isinstance(line, Styled):
        return line
    return "".join(c if c.isprintable() else REPLACED for c in line.expandtabs())


def indented(text: str, margin: int) -> list[str]:
    """Return the harmless lines of a text, each after a margin of spaces.

    They end with a line feed only: what else may end a line can be part of somebody's name.
    """
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return [f"{' ' * margin}{harmless(line)}" for line in lines]


def is_colourless() -> bool:
    """Whether the terminal's user wants no colours."""
    return bool(os.environ.get("NO_COLOR"))


def echo(*lines: Line, err: bool = False) -> None:
    """Print lines, made harmless; styles appear on a terminal only."""
    color = False if is_colourless() else None
    for line in lines:
        parts = [line] if isinstance(line, str) else line
        click.echo("".join(map(harmless, parts)).rstrip(), err=err, color=color)


def rows(
    headings: Sequence[str], cells: Iterable[Sequence[str]], *, right: Collection[str] = ()
) -> Iterator[Line]:
    """Align the cells under their headings, those of the headings named in `right` to the right."""
    head = [Styled(heading, "bold") for heading in headings]
    table = [head, *([Styled(cell) for cell in row] for row in cells)]
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    for row in table:
        line: list[str] = []
        for cell, heading, width in zip(row, headings, widths, strict=True):
            blank = " " * (width - _width(cell))
            line += [blank, cell, GAP] if heading in right else [cell, blank, GAP]
        yield line


def _width(cell: Styled) -> int:
    return len(click.unstyle(cell))


def fold(sentence: str, before: str) -> list[str]:
    """Fold a sentence to the terminal's width, with `before` on its first line; cut no name."""
    return textwrap.wrap(
        harmless(sentence),
        shutil.get_terminal_size().columns if sys.stdout.isatty() else UNFOLDED,
        initial_indent=before,
        subsequent_indent=" " * len(before),
        break_on_hyphens=False,
    )


def echo_attention(sentences: Iterable[str]) -> bool:
    """Print the sentences as a list of what needs attention; False if there are none."""
    lines = [line for sentence in sentences for line in fold(sentence, "  - ")]
    if lines:
        echo(Styled("Needs attention:", "bold red"), *lines)
    return bool(lines)


def echo_json(document: object, indent: int | None = None) -> None:
    """Print JSON in ASCII: times in RFC 3339, durations in seconds, dataclasses as objects."""
    encoded = json.dumps(document, default=_encode, indent=indent)
    click.echo(encoded.replace("\x7f", "\\u007f"))


def fields_of(view: Any, **renamed: str) -> dict[str, Any]:
    """Return the fields of a dataclass by name, some of them renamed."""
    return {renamed.get(each.name, each.name): getattr(view, each.name) for each in fields(view)}


def _encode(value: object) -> object:
    match value:
        case datetime():
            return iso(value)
        case timedelta():
            return value.total_seconds()
        case UUID():
            return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return fields_of(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number done so far; on a terminal it draws a bar."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    began = time.monotonic()

    def rate(done: int | None) -> str:
        return "" if done is None else f"{done / (time.monotonic() - began):,.0f}/s"

    with click.progressbar(
        length=total, label=harmless(what), show_pos=True, item_show_func=rate, file=sys.stderr
    ) as bar:
        yield lambda done: bar.update(done - bar.pos, done)


@contextmanager
def status_line(text: str) -> Iterator[Callable[[str], None]]:
    """Show one line on a terminal's stderr; yield a function that replaces its text."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return

    def show(text: str) -> None:
        click.echo(f"\r\x1b[K{harmless(text)}", nl=False, err=True)

    show(text)
    try:
        yield show
    finally:
        show("")


ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""Another screen, without a cursor."""
HOME, END_OF_LINE, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


@contextmanager
def full_screen() -> Iterator[Callable[[Iterable[Line]], None]]:
    """Yield a function that draws lines on a terminal's screen, and give the terminal back."""

    def draw(lines: Iterable[Line]) -> None:
        width, height = shutil.get_terminal_size()
        fitting = [_cut(line, width) for line in lines]
        if len(fitting) > height:
            fitting = [*fitting[: height - 1], f"… {len(fitting) - height + 1} more lines"]
        text = f"{END_OF_LINE}\r\n".join(fitting)
        sys.stdout.write(f"{HOME}{text}{END_OF_LINE}{BELOW}")
        sys.stdout.flush()

    sys.stdout.write(ENTER_SCREEN)
    try:
        yield draw
    finally:
        sys.stdout.write(LEAVE_SCREEN)
        sys.stdout.flush()


def _cut(line: Line, width: int) -> str:
    """Make a line harmless, and cut it to the width."""
    cut, left = "", width
    for part in [line] if isinstance(line, str) else line:
        styled = Styled(part)
        plain = click.unstyle(styled)
        whole = plain if is_colourless() else styled
        cut += whole if len(plain) <= left else plain[:left]
        left = max(left - len(plain), 0)
    return cut
