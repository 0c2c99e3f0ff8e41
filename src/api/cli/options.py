"""The options that commands share, the types of their values, and the question before a change."""

import getpass
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from kratos_sync.api.cli.output import harmless
from kratos_sync.application.ports.operations import LONGEST_NAME, LONGEST_REASON
from kratos_sync.application.ports.purge import SHORTEST_RETENTION

if TYPE_CHECKING:
    from kratos_sync.application.application import Subscriptions

FOREVER: Final = timedelta.max
_SPAN: Final = re.compile(r"(\d{1,5}) ?(s|min|m|h|d|w)", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}

Command = TypeVar("Command", bound=Callable[..., Any])
Time = timedelta | datetime
"""A duration ago, or a point in time."""


def _span(text: str) -> timedelta | None:
    found = _SPAN.fullmatch(text.strip())
    return timedelta(seconds=int(found[1]) * _SECONDS[found[2]]) if found else None


def point_in_time(text: str) -> Time:
    """Parse a duration ago (``90s``, ``15min``, ``2h``, ``3d``, ``1w``), or ISO 8601 (in UTC).

    `resolved` turns a duration into a time by the database's clock. Raises click.BadParameter.
    """
    if (span := _span(text)) is not None:
        return span
    try:
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is neither a duration (15min, 2h, 3d) nor a time"
            " (2026-11-23T04:37, in UTC unless it has an offset)."
        ) from None


def resolved(given: Time | None, now: datetime) -> datetime | None:
    """Return the point in time."""
    return now - given if isinstance(given, timedelta) else given


def age(text: str) -> timedelta:
    """Parse how long rows are kept: ``36h``, ``90d``, ``12w`` or ``forever``; at least a day.

    Raises click.BadParameter.
    """
    if text == "forever":
        return FOREVER
    span = _span(text)
    if span is None:
        raise click.BadParameter(f"{text!r} is no age such as 36h, 90d, 12w or forever.")
    if span < SHORTEST_RETENTION:
        raise click.BadParameter("a day is the least: Kratos may call again.")
    if span > timedelta(days=36_500):
        raise click.BadParameter("for more than a hundred years say forever.")
    return span


def interval(text: str) -> timedelta:
    """Parse how often something is done, at least a minute apart. Raises click.BadParameter."""
    span = _span(text)
    if span is None or span < timedelta(minutes=1):
        raise click.BadParameter(f"{text!r} is no interval such as 15min, 2h or 1d.")
    return span


def consumers(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> Sequence[CompletionItem]:
    """Complete the names of consumers."""
    from kratos_sync.infrastructure.application import subscriptions_at

    names = subscriptions_at(os.environ.get("KRATOS_SYNC_APP")).consumers
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def os_user() -> str:
    """The user of the operating system who runs this."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"user {os.getuid()}"


def _operator(_ctx: click.Context, _param: click.Parameter, given: str | None) -> str:
    if given and given.strip():
        return _bounded(given.strip(), LONGEST_NAME)
    return os_user()


def _reason(_ctx: click.Context, _param: click.Parameter, given: str | None) -> str | None:
    if given is None:
        return None
    if not given.strip():
        raise click.BadParameter("say why: it is kept.")
    return _bounded(given.strip(), LONGEST_REASON)


def _bounded(given: str, most: int) -> str:
    if len(given) > most:
        raise click.BadParameter(f"at most {most:,} characters.")
    return given


def known_consumer(subscriptions: "Subscriptions", name: str, besides: Sequence[str] = ()) -> str:
    """Return the name of a consumer, one of the subscribed or of those `besides`.

    Raises click.UsageError for one that does not exist.
    """
    names = list(dict.fromkeys([*subscriptions.consumers, *besides]))
    if name not in names:
        known = ", ".join(names)
        raise click.UsageError(f"there is no consumer {name}: there are {known}.")
    return name


def consumer(**attributes: Any) -> Callable[[Command], Command]:
    """Add `--consumer`, whose names the shell can complete."""
    return click.option("--consumer", metavar="NAME", shell_complete=consumers, **attributes)


def time(name: str, **attributes: Any) -> Callable[[Command], Command]:
    """Add an option that takes a point in time."""
    return click.option(name, type=point_in_time, metavar="TIME", **attributes)


def limit(default: int, most: int, **attributes: Any) -> Callable[[Command], Command]:
    """Add `--limit`."""
    number = click.IntRange(1, most)
    return click.option("--limit", type=number, default=default, show_default=True, **attributes)


as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, for machines."
)
yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
dry_run = click.option("--dry-run", is_flag=True, help="Report only; change nothing.")
by = click.option(
    "--by",
    "--as",
    "by",
    metavar="NAME",
    callback=_operator,
    help="Who decides this; by default, you.",
)
reason = click.option(
    "--reason", required=True, callback=_reason, help="Why. It is kept: name no person."
)
why = click.option("--reason", callback=_reason, help="Why; optional. It is kept: name no person.")
verbose = click.option(
    "--verbose", is_flag=True, help="Print errors in full: they may quote personal data."
)
identity_id = click.argument("identity_id", metavar="ID", type=click.UUID)


def together(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Add several options and arguments, in this order."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def confirm(question: str, yes: bool) -> None:
    """Return if `yes` is set, or if the answer at the terminal is yes.

    Asks on stderr, because a machine may read stdout. Raises click.UsageError without a terminal,
    and click.Abort for any other answer.
    """
    if yes:
        return
    if not is_at_terminal():
        raise click.UsageError("nothing was done: without a terminal to ask at, say --yes.")
    click.confirm(harmless(question), abort=True, err=True)


def is_at_terminal() -> bool:
    """Whether a person can answer."""
    return sys.stdin.isatty()
