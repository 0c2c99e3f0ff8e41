"""The options that commands share, the types of their values, and the question before a change."""

import getpass
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, ParamSpec, TypeVar

import click
from click.shell_completion import CompletionItem

from kratos_sync.api.cli.output import harmless

FOREVER: Final = timedelta.max
SHORTEST_RETENTION: Final = timedelta(days=1)
_AGE: Final = re.compile(r"(\d{1,6}) ?(h|d|w)", re.ASCII)
_AGO: Final = re.compile(r"(\d{1,5}) ?(s|min|m|h|d|w)", re.ASCII)
_UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}

P = ParamSpec("P")
R = TypeVar("R")
Time = timedelta | datetime
"""A duration ago, or a point in time."""


class PointInTime(click.ParamType[Time]):
    """A duration ago (``90s``, ``15min``, ``2h``, ``3d``, ``1w``), or ISO 8601, by default in UTC.

    `resolved` turns a duration into a time by the database's clock.
    """

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Time:
        """Parse the value. Raises click.BadParameter."""
        if isinstance(value, timedelta | datetime):
            return value
        if ago := _AGO.fullmatch(str(value).strip()):
            return int(ago[1]) * _UNITS[ago[2]]
        try:
            at = datetime.fromisoformat(str(value).strip())
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither a duration (15min, 2h, 3d) nor a time"
                " (2026-11-23T04:37, in UTC unless it has an offset).",
                param,
                ctx,
            )


def resolved(given: Time | None, now: datetime) -> datetime | None:
    """Return the point in time."""
    return now - given if isinstance(given, timedelta) else given


class Age(click.ParamType[timedelta]):
    """How long rows are kept: ``36h``, ``90d``, ``12w`` or ``forever``; at least a day."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Parse the value. Raises click.BadParameter."""
        if isinstance(value, timedelta):
            return value
        if value == "forever":
            return FOREVER
        read = _AGE.fullmatch(str(value).strip())
        if read is None:
            self.fail(f"{value!r} is no age such as 36h, 90d, 12w or forever.", param, ctx)
        age = int(read[1]) * _UNITS[read[2]]
        if age < SHORTEST_RETENTION:
            self.fail("a day is the least: Kratos may call again.", param, ctx)
        if age > timedelta(days=36_500):
            self.fail("for more than a hundred years say forever.", param, ctx)
        return age


class Interval(click.ParamType[timedelta]):
    """How often something is done: ``15min``, ``2h`` or ``1d``; at least a minute."""

    name = "interval"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Parse the value. Raises click.BadParameter."""
        read = _AGO.fullmatch(str(value).strip())
        interval = int(read[1]) * _UNITS[read[2]] if read else timedelta()
        if interval < timedelta(minutes=1):
            self.fail(f"{value!r} is no interval such as 15min, 2h or 1d.", param, ctx)
        return interval


def _consumers(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> Sequence[CompletionItem]:
    from kratos_sync.application.subscriptions import CONSUMERS

    return [CompletionItem(name) for name in CONSUMERS if name.startswith(incomplete)]


def _operator(_ctx: click.Context, _param: click.Parameter, given: str | None) -> str:
    """Return the name that was given, or else that of the operating system's user."""
    if given and given.strip():
        return given.strip()
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"user {os.getuid()}"


def _reason(_ctx: click.Context, _param: click.Parameter, given: str) -> str:
    if not given.strip():
        raise click.BadParameter("say why: it is kept.")
    return given.strip()


def consumer(
    help: str = "Only this consumer's.",  # noqa: A002
    *,
    required: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Add `--consumer`, whose names the shell can complete."""
    return click.option(
        "--consumer", metavar="NAME", required=required, shell_complete=_consumers, help=help
    )


def time(
    name: str,
    help: str,  # noqa: A002
    *,
    required: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Add an option that takes a point in time."""
    return click.option(name, type=PointInTime(), metavar="TIME", required=required, help=help)


def limit(
    default: int,
    most: int,
    help: str,  # noqa: A002
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Add `--limit`."""
    number = click.IntRange(1, most)
    return click.option("--limit", type=number, default=default, show_default=True, help=help)


as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, for machines."
)
yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
dry_run = click.option("--dry-run", is_flag=True, help="Report only; change nothing.")
by = click.option(
    "--by", metavar="NAME", callback=_operator, help="Who decides this; by default, you."
)
reason = click.option(
    "--reason", required=True, callback=_reason, help="Why. It is kept, so let it name nobody."
)
verbose = click.option(
    "--verbose", is_flag=True, help="Print errors in full: they may quote personal data."
)
identity_id = click.argument("identity_id", metavar="ID", type=click.UUID)


def confirm(question: str, yes: bool) -> None:
    """Return if `yes` is set, or is answered at the terminal.

    Raises click.UsageError without a terminal, and click.Abort for any other answer. The question
    is printed on stderr, because a machine may read stdout.
    """
    if yes:
        return
    if not is_at_terminal():
        raise click.UsageError("nothing was done: without a terminal to ask at, say --yes.")
    click.confirm(harmless(question), abort=True, err=True)


def is_at_terminal() -> bool:
    """Whether a person can answer."""
    return sys.stdin.isatty()
