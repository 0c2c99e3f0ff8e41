"""Ages as people give them."""

import re
from datetime import timedelta
from typing import Any, Final

import click

from application.ports.purge import SHORTEST_RETENTION

FOREVER: Final = timedelta.max
_AGE: Final = re.compile(r"(\d{1,6}) ?(h|d|w)", re.ASCII)
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class Age(click.ParamType[timedelta]):
    """How long rows are kept: ``36h``, ``90d``, ``12w`` or ``forever``; a day is the least."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read it; what cannot be read, or is less than a day, is wrong use."""
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
