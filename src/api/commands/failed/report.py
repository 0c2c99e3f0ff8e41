"""What `kratos-sync failed` tells a person."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.text import Text

from api.commands.quoting import indented
from api.commands.terminal import uncut_console
from api.commands.units import amount, duration, moment
from application.ports.dead_letters import DeadLetter, DeadLetterGroup, DeadLetterGroups


def print_groups(
    found: DeadLetterGroups, at: datetime, verbose: bool, *, stderr: bool = False
) -> None:
    """Print how many dead letters there are, and each group in a few lines."""
    out = uncut_console(stderr=stderr)
    for line in _groups(found, at, verbose):
        out.print(line)


def print_each(newest: Sequence[DeadLetter], in_all: int, at: datetime, verbose: bool) -> None:
    """Print each dead letter in a few lines."""
    out = uncut_console()
    for line in _each(newest, in_all, at, verbose):
        out.print(line)


def _groups(found: DeadLetterGroups, at: datetime, verbose: bool) -> Iterator[Text | str]:
    if not found.dead_letters:
        yield "No dead letters."
        return
    shown = len(found.groups)
    headline = (
        f"{amount(found.dead_letters, 'dead letter')} in {amount(found.groups_in_all, 'group')}"
    )
    if shown < found.groups_in_all:
        headline += f"; the largest {shown:,} of them"
    yield Text(f"{headline}:", style="bold")
    for group in found.groups:
        yield ""
        yield from _group(group, at, verbose)


def _group(group: DeadLetterGroup, at: datetime, verbose: bool) -> Iterator[Text | str]:
    line = Text(f"{group.dead_letters:>9,}  ", style="bold red")
    line.append(group.consumer, style="bold default")
    yield line
    yield f"           {_kind(group.exception, group.shape)}"
    first, last = moment(group.first_failed_at), moment(group.last_failed_at)
    when = last if first == last else f"from {first} to {last}"
    yield f"           failed {when} ({_ago(group.last_failed_at, at)})"
    yield f"           for example event {group.example}"
    if verbose and group.example_error:
        yield from (Text(line, style="dim") for line in indented(group.example_error, 15))


def _each(
    newest: Sequence[DeadLetter], in_all: int, at: datetime, verbose: bool
) -> Iterator[Text | str]:
    if not in_all:
        yield "No dead letters."
        return
    headline = amount(in_all, "dead letter")
    if len(newest) < in_all:
        headline = f"The newest {len(newest):,} of {headline}; --limit shows more"
    yield Text(f"{headline}:", style="bold")
    for letter in newest:
        yield ""
        yield Text(
            f"{moment(letter.failed_at)}  {letter.consumer}"
            f"  after {amount(letter.attempts, 'attempt')} ({_ago(letter.failed_at, at)})",
            style="bold",
        )
        yield f"  event {letter.event_id}, {letter.event or 'no longer in the ledger'}"
        yield f"  identity {letter.identity_id}"
        yield f"  {_kind(letter.exception, letter.shape)}"
        if verbose and letter.error:
            yield from (Text(line, style="dim") for line in indented(letter.error, 6))


def _kind(exception: str, shape: str | None) -> str:
    return f"{exception}: {shape}" if shape else exception


def _ago(time: datetime, at: datetime) -> str:
    return f"{duration(at - time)} ago"
