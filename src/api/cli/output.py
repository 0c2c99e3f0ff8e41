"""What commands print: lines, rows and JSON that cannot control a terminal, and words for amounts.

States, names, errors and reasons were written by others, so every string printed for a person is
made harmless here first.
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
from datetime import UTC, datetime, timedelta
from math import floor, log10
from typing import Final, NamedTuple
from uuid import UUID

import click

REPLACED: Final = "\N{REPLACEMENT CHARACTER}"
UNFOLDED: Final = 250
"""Width of sentences where there is no terminal."""
GAP: Final = "  "


def harmless(line: str) -> str:
    """Return one line with tabs expanded and every other control character replaced."""
    line = line.expandtabs()
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else REPLACED for c in line)


def indented(text: str, margin: int) -> list[str]:
    """Return the harmless lines of a text, each after a margin of spaces."""
    return [f"{' ' * margin}{harmless(line)}" for line in text.splitlines()]


def single_line(error: click.ClickException) -> click.ClickException:
    """Return the error with a message of one harmless line."""
    error.message = harmless(error.message)  # type: ignore[misc]  # click's own show() reads it
    return error


class Styled(NamedTuple):
    """A text and its style: `bold`, `dim` or a colour, separated by spaces."""

    text: str
    style: str = ""

    def render(self) -> str:
        """Return the harmless text in its style."""
        words = set(self.style.split())
        colour = next(iter(words - {"bold", "dim"}), None)
        text = harmless(self.text)
        if not words or not text:
            return text
        bold, dim = "bold" in words or None, "dim" in words or None
        return click.style(text, fg=colour, bold=bold, dim=dim)


Text = str | Styled
Line = Text | Sequence[Text]
"""A line of one or more parts."""


def echo(*lines: Line, err: bool = False) -> None:
    """Print lines, made harmless; styles appear on a terminal only."""
    color = False if os.environ.get("NO_COLOR") else None
    for line in lines:
        parts = (line,) if isinstance(line, str | Styled) else line
        click.echo("".join(_styled(part).render() for part in parts), err=err, color=color)


def _styled(text: Text) -> Styled:
    return text if isinstance(text, Styled) else Styled(text)


def rows(
    headings: Sequence[str], cells: Iterable[Sequence[Text]], *, right: Collection[str] = ()
) -> Iterator[Line]:
    """Align the cells under their headings, those of the headings named in `right` to the right."""
    head = [Styled(heading, "bold") for heading in headings]
    table = [head, *([_styled(cell) for cell in row] for row in cells)]
    widths = [
        max(len(harmless(cell.text)) for cell in column) for column in zip(*table, strict=True)
    ]
    for row in table:
        line: list[Text] = []
        for cell, heading, width in zip(row, headings, widths, strict=True):
            blank = " " * (width - len(harmless(cell.text)))
            line += [blank, cell, GAP] if heading in right else [cell, blank, GAP]
        yield _without_trailing_blanks(line)


def _without_trailing_blanks(line: list[Text]) -> list[Text]:
    while line and not _styled(line[-1]).text.strip():
        line.pop()
    return line


def width() -> int:
    """Return how wide sentences are: as the terminal is."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNFOLDED


def fold(sentence: str, before: str) -> list[str]:
    """Fold a sentence to the terminal's width, with `before` on its first line; cut no name."""
    indent = " " * len(before)
    return textwrap.wrap(
        harmless(sentence),
        width(),
        initial_indent=before,
        subsequent_indent=indent,
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


def _encode(value: object) -> object:
    match value:
        case datetime():
            return iso(value)
        case timedelta():
            return value.total_seconds()
        case UUID():
            return str(value)
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
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
        length=total,
        label=harmless(what),
        show_pos=True,
        item_show_func=rate,
        file=sys.stderr,
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


_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_SIZES: Final = ("bytes", "kB", "MB", "GB", "TB", "PB")
SIGNIFICANT_DIGITS: Final = 3


def duration(span: timedelta, units: int = 2) -> str:
    """Write a duration in its largest units: ``12 ms``, ``7 s``, ``3 min 5 s``, ``2 d``."""
    seconds = max(span.total_seconds(), 0.0)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s".replace(".0 ", " ")
    parts: list[str] = []
    for unit, size in _UNITS:
        if seconds >= size or parts:
            whole, seconds = divmod(seconds, size)
            parts.append(f"{int(whole)} {unit}" if whole else "")
    return " ".join(part for part in parts[:units] if part)


def ago(at: datetime, now: datetime, units: int = 1) -> str:
    """Write how long ago that was: ``3 h ago``."""
    return f"{duration(now - at, units)} ago"


def moment(at: datetime) -> str:
    """Write a point in time, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(at: datetime) -> str:
    """Write a point in time for machines: RFC 3339 in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def amount(number: int, what: str, plural: str | None = None) -> str:
    """Write an amount: ``1 delivery``, ``1,200 events``."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"


def deliveries(number: int) -> str:
    """Write a number of deliveries."""
    return amount(number, "delivery", "deliveries")


def identities(number: int) -> str:
    """Write a number of identities."""
    return amount(number, "identity", "identities")


def roughly(number: int) -> str:
    """Write an estimate with three significant digits: ``about 1,990,000``."""
    digits = floor(log10(number)) + 1 if number > 0 else 1
    return f"about {round(number, SIGNIFICANT_DIGITS - digits):,}"


def size(number: int) -> str:
    """Write a number of bytes in decimal units: ``12 kB``, ``1.2 GB``."""
    shown, units = float(number), iter(_SIZES)
    unit = next(units)
    while round(shown) >= 1_000:  # noqa: PLR2004
        shown, unit = shown / 1_000, next(units)
    return f"{shown:.{0 if unit == _SIZES[0] or shown >= 10 else 1}f} {unit}"  # noqa: PLR2004
