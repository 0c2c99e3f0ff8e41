"""Hooks that used to be heard, and are not any more."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from application.ports.hook_log import HookHeard

GAPS: Final = 10
"""Whoever is silent for so many times the usual gap,"""
LEAST: Final = timedelta(days=3)
"""and for longer than a quiet weekend, is silent."""
FEW: Final = 20
"""With fewer calls nobody knows what is usual."""


class Silence(NamedTuple):
    """A hook that was last heard then, and used to be heard so often; None for all of them."""

    label: str | None
    last_at: datetime
    usual_gap: timedelta


def silences(hooks: Sequence[HookHeard], now: datetime) -> list[Silence]:
    """Tell which hooks are silent while others are heard, or that all of them are.

    A gap is usual if it is the mean one: from the first call to the last.
    """
    if not hooks:
        return []
    last = max(hook.last_at for hook in hooks)
    together = HookHeard(
        "", min(hook.first_at for hook in hooks), last, sum(hook.calls for hook in hooks)
    )
    if silence := _silence(together, now):
        return [silence._replace(label=None)]
    # By the last call of any: a night in which nobody is awake is nobody's silence.
    found = (_silence(hook, last) for hook in hooks)
    return [silence for silence in found if silence]


def _silence(hook: HookHeard, now: datetime) -> Silence | None:
    if hook.calls < FEW:
        return None
    gap = (hook.last_at - hook.first_at) / (hook.calls - 1)
    if now - hook.last_at <= max(LEAST, GAPS * gap):
        return None
    return Silence(hook.label, hook.last_at, gap)
