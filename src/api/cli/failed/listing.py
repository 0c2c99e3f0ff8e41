"""`kratos-sync failed list`, and the JSON that ``--json`` prints.

Times are ISO 8601 in UTC; keys are only ever added:

    {"at": "…", "dead_letters": 1204, "groups_in_all": 1,
     "groups": [{"consumer": "SendWelcomeEmail", "exception": "smtplib.SMTPServerDisconnected",
                 "shape": "Connection unexpectedly closed", "dead_letters": 1204,
                 "first_failed_at": "…", "last_failed_at": "…",
                 "example_event_id": "…", "example_error": null}]}

``shape`` is the message without what differs from one event to the next; null where it was not
kept. With ``--each``:

    {"at": "…", "dead_letters": 1204,
     "newest": [{"event_id": "…", "consumer": "SendWelcomeEmail", "event": "identity.registered",
                 "identity_id": "…", "attempts": 12, "failed_at": "…",
                 "exception": "smtplib.SMTPServerDisconnected",
                 "shape": "Connection unexpectedly closed", "error": null}]}

``event`` is null where the event is no longer in the ledger. ``example_error`` and ``error`` are
always null without ``--verbose``: they may quote personal data.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import click
from rich.text import Text

from kratos_sync.api.cli.options import PointInTime, amount, duration, iso, moment, resolved
from kratos_sync.api.cli.output import echo_json, indented, uncut_console
from kratos_sync.api.cli.process import expected_errors, opened_container
from kratos_sync.application.ports.dead_letters import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterGroups,
    DeadLetters,
)


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


P = ParamSpec("P")
R = TypeVar("R")

consumer_option = click.option("--consumer", metavar="NAME", help="Only this consumer's.")
_OPTIONS = (
    consumer_option,
    click.option("--event", metavar="NAME", help="Only of this event, by its name on the wire."),
    click.option(
        "--exception", metavar="TYPE", help="Only with this type of exception, or its last part."
    ),
    click.option(
        "--since",
        type=PointInTime(),
        metavar="TIME",
        help="Only what failed since then: 15min, 2h or 3d ago, or 2026-11-23T04:37 (UTC).",
    ),
)
Since = timedelta | datetime | None


def filters(command: Callable[P, R]) -> Callable[P, R]:
    """Give a command the options ``consumer``, ``event``, ``exception`` and ``since``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("list")
@filters
@click.option("--each", is_flag=True, help="Every dead letter by itself, the newest first.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="The largest so many groups, or the newest so many dead letters.",
)
@click.option("--verbose", is_flag=True, help="Whole errors: they may quote personal data.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def list_(
    *,
    consumer: str | None,
    event: str | None,
    exception: str | None,
    since: Since,
    each: bool,
    limit: int,
    verbose: bool,
    as_json: bool,
) -> None:
    """List what failed: grouped by consumer, exception and message, the largest group first."""
    with opened_container(migrated=False) as container, expected_errors():
        dead_letters = container.dead_letters()
        at = dead_letters.now()
        wanted = DeadLetterFilter(None, consumer, event, exception, resolved(since, at), at)
        if each:
            newest, in_all = dead_letters.newest(wanted, limit), dead_letters.count(wanted)
            if as_json:
                echo_json(each_json(newest, in_all, at, verbose))
            else:
                print_each(newest, in_all, at, verbose)
        else:
            groups = dead_letters.groups(wanted, limit)
            if as_json:
                echo_json({"at": iso(at), **groups_json(groups, verbose)})
            else:
                print_groups(groups, at, verbose)


def groups_json(found: DeadLetterGroups, verbose: bool) -> dict[str, Any]:
    """Give the groups as the module's docstring shows them."""
    return {
        "dead_letters": found.dead_letters,
        "groups_in_all": found.groups_in_all,
        "groups": [
            {
                "consumer": group.consumer,
                "exception": group.exception,
                "shape": group.shape,
                "dead_letters": group.dead_letters,
                "first_failed_at": iso(group.first_failed_at),
                "last_failed_at": iso(group.last_failed_at),
                "example_event_id": str(group.example),
                "example_error": group.example_error if verbose else None,
            }
            for group in found.groups
        ],
    }


def each_json(
    newest: Sequence[DeadLetter], in_all: int, at: datetime, verbose: bool
) -> dict[str, Any]:
    """Give the object that ``--each`` prints."""
    return {
        "at": iso(at),
        "dead_letters": in_all,
        "newest": [
            {
                "event_id": str(letter.event_id),
                "consumer": letter.consumer,
                "event": letter.event,
                "identity_id": str(letter.identity_id),
                "attempts": letter.attempts,
                "failed_at": iso(letter.failed_at),
                "exception": letter.exception,
                "shape": letter.shape,
                "error": letter.error if verbose else None,
            }
            for letter in newest
        ],
    }


MOST_GROUPS = 20


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen, as a filter that lets in nothing that fails later, and what it matches."""

    wanted: DeadLetterFilter
    groups: DeadLetterGroups
    at: datetime


def choose(
    dead_letters: DeadLetters,
    *,
    event_id: UUID | None,
    every: bool,
    consumer: str | None,
    event: str | None,
    exception: str | None,
    since: Since,
) -> Chosen:
    """Give what is meant: the dead letter of one event, or all that fit.

    Raises click.UsageError when that is not said clearly, and click.ClickException when the event
    has no dead letter.
    """
    if (event_id is None) != every:
        raise click.UsageError("say either an EVENT_ID, or --all, which filters narrow.")
    if event_id is not None and (event or exception or since):
        raise click.UsageError("with an EVENT_ID there is nothing to filter but --consumer.")
    at = dead_letters.now()
    wanted = DeadLetterFilter(event_id, consumer, event, exception, resolved(since, at), at)
    found = dead_letters.groups(wanted, MOST_GROUPS)
    if event_id is not None:
        _require_one(event_id, consumer, found)
    return Chosen(wanted, found, at)


def _require_one(event_id: UUID, consumer: str | None, found: DeadLetterGroups) -> None:
    if not found.dead_letters:
        where = f" at {consumer}" if consumer else ""
        raise click.ClickException(f"There is no dead letter of the event {event_id}{where}.")
    if found.dead_letters > 1:
        names = ", ".join(sorted(group.consumer for group in found.groups))
        raise click.UsageError(f"the event failed at {names}: say which with --consumer.")
