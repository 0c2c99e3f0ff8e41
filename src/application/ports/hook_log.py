"""When each of Kratos' hooks was last heard, by the label that it gives itself."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

MOST_LABELS: Final = 100
NO_LABEL: Final = ""
"""Calls without a header `X-Kratos-Hook`, or with one that is unfit."""


class Calls(NamedTuple):
    """So many calls of a hook, the last of them so long ago."""

    label: str
    number: int
    ago: timedelta


class HookActivity(NamedTuple):
    """A hook that was heard: since when, and when last."""

    label: str
    first_at: datetime
    last_at: datetime
    calls: int


class HookLog(Protocol):
    """Adds up calls, hook by hook, for every process that takes them."""

    async def note(self, calls: Sequence[Calls]) -> None:
        """Add these, each label once; of new labels only so many as make MOST_LABELS in all.

        Raises LedgerUnavailable if nothing was added, or it is open whether it was.
        """

    async def stop(self) -> None:
        """Let go of what was held for it."""
