"""When each hook of Kratos has called, by the label in its header."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

MOST_LABELS: Final = 100
NO_LABEL: Final = ""
"""For calls without a header `X-Kratos-Hook`, or with one that is invalid."""


class Calls(NamedTuple):
    """A number of calls of a hook, and how long ago the last one was."""

    label: str
    number: int
    ago: timedelta


class HookActivity(NamedTuple):
    """The first and the last call of a hook, and the number of calls."""

    label: str
    first_at: datetime
    last_at: datetime
    calls: int


class HookLog(Protocol):
    """Adds up calls by hook, over all processes."""

    async def note(self, calls: Sequence[Calls]) -> None:
        """Add calls, each label once; new labels only up to MOST_LABELS in all.

        Raises LedgerUnavailable; the calls may have been added then.
        """

    async def stop(self) -> None:
        """Disconnect."""
