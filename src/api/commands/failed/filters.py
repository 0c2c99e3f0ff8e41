"""The options by which dead letters are chosen."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar

import click

from api.commands.times import PointInTime

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
