"""What `kratos-sync status` tells of Kratos' hooks: when each was last heard."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from api.commands.terminal import Table
from api.commands.units import amount, duration, iso
from application.ports.hook_log import HookHeard
from application.ports.status import TemplateFailures
from application.silence import silences

UNNAMED = "(no X-Kratos-Hook)"


def hooks_attention(hooks: Sequence[HookHeard], now: datetime) -> Iterator[str]:
    """Say which hooks used to be heard and are silent, a sentence for each."""
    for silence in silences(hooks, now):
        who = "No webhook" if silence.label is None else f"The hook {named(silence.label)}"
        was = "was" if silence.label is None else "was not"
        yield (
            f"{who} {was} heard for {duration(now - silence.last_at)}; before that,"
            f" one came every {duration(silence.usual_gap)} in the mean. `kratos-sync check` reads"
            " Kratos' configuration."
        )


def template_attention(failures: Sequence[TemplateFailures], now: datetime) -> Iterator[str]:
    """Say for which hooks Kratos' template failed, a sentence for each."""
    for each in failures:
        yield (
            f"Kratos' template failed: {amount(each.calls, 'call')} of the hook"
            f" {named(each.label)} had an empty body, the last {duration(now - each.last_at)} ago."
            " Somebody is missing or stale here: `kratos-sync reconcile` finds them. Are there"
            " identities of more than some KiB?"
        )


def hooks_table(hooks: Sequence[HookHeard], now: datetime) -> Table:
    """Give a line for each hook."""
    table = Table()
    table.add_column("HOOK")
    table.add_column("CALLS", justify="right")
    table.add_column("LAST CALL", justify="right")
    for hook in hooks:
        table.add_row(
            named(hook.label), f"{hook.calls:,}", f"{duration(now - hook.last_at, units=1)} ago"
        )
    return table


def hooks_json(hooks: Sequence[HookHeard]) -> list[dict[str, Any]]:
    """Give the list `hooks` of `kratos-sync status --json`."""
    return [
        {
            "label": hook.label,
            "first_at": iso(hook.first_at),
            "last_at": iso(hook.last_at),
            "calls": hook.calls,
        }
        for hook in hooks
    ]


def template_failures_json(failures: Sequence[TemplateFailures]) -> list[dict[str, Any]]:
    """Give the list `template_failures` of `kratos-sync status --json`."""
    return [
        {
            "label": each.label,
            "calls": each.calls,
            "first_at": iso(each.first_at),
            "last_at": iso(each.last_at),
        }
        for each in failures
    ]


def named(label: str) -> str:
    """Give the label, or say that there is none."""
    return label or UNNAMED
