"""What `kratos-sync status` says of comparisons with Kratos that need attention."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from api.commands.units import amount, duration
from application.drift import Drift, Rise
from application.ports.reconciliation import PastReconciliation
from application.unheard import HOOKS, NEWER

LATE: Final = timedelta(days=1)
"""Whoever set KRATOS_ADMIN_URL has our copy compared once a day at least."""
_OF_DELETIONS: Final = "not listed"
"""In a refusal that may be overruled."""


def drift_attention(drift: Drift, now: datetime, *, can_ask: bool) -> Iterator[str]:
    """Say what is not as it should be, a sentence for each.

    ``can_ask`` is whether we know where Kratos' Admin API is.
    """
    newest, last = drift.newest, drift.last
    if can_ask and not drift.is_running:
        yield from _late(drift, now)
    if newest and not newest.ended_at and not drift.is_running:
        yield (
            f"The comparison with Kratos that began {_ago(newest.started_at, now)} was interrupted:"
            " `kratos-sync reconcile` goes on with it."
        )
    if last and last.outcome and last.outcome.startswith("refused"):
        yield _refused(last, now)
    if rise := drift.rise:
        yield _rise(rise, drift.compared[0], now)
    if last and (newer := last.findings.unheard.get(NEWER)):
        yield (
            f"{amount(newer, 'identity was', 'identities were')} newer here than in Kratos at the"
            f" comparison {_ago(last.started_at, now)}, and repaired: is the clock of a Kratos"
            " wrong, was Kratos restored from a backup, or does somebody else have a webhook key?"
        )
    if last and last.findings.unreadable:
        yield (
            f"{amount(last.findings.unreadable, 'identity', 'identities')} of Kratos' cannot be"
            " read, and so not be kept right here: numbers beyond a double's range, say."
        )


def _late(drift: Drift, now: datetime) -> Iterator[str]:
    remedy = "`kratos-sync reconcile` does it, and with `--every 1h` again and again."
    completed = [each.ended_at for each in drift.past if each.outcome == "completed"]
    last = completed[0] if completed else None
    if not drift.past:
        yield f"Our copy was never compared with Kratos: {remedy}"
    elif last is None:
        yield f"No comparison of our copy with Kratos has come to its end: {remedy}"
    elif now - last > LATE:
        yield f"Our copy was not compared with Kratos for {duration(now - last)}: {remedy}"


def _refused(last: PastReconciliation, now: datetime) -> str:
    why = (last.outcome or "").partition(": ")[2]
    if _OF_DELETIONS in why:
        remedy = (
            "Is that right? `kratos-sync reconcile --dry-run --verbose` names them, and"
            " `--allow-deletes N` lets them go."
        )
    else:
        remedy = "Is KRATOS_ADMIN_URL right?"
    return (
        f"The comparison with Kratos {_ago(last.started_at, now)} deleted nobody: {why}. {remedy}"
    )


def _rise(rise: Rise, newest: PastReconciliation, now: datetime) -> str:
    unheard = newest.findings.unheard
    by_hook = ", ".join(f"{hook} {unheard[hook]:,}" for hook in HOOKS if unheard.get(hook))
    return (
        f"The comparison with Kratos {_ago(newest.started_at, now)} repaired {rise.missed:,} that"
        f" webhooks should have told ({by_hook}); from those before, {rise.usual:,.0f} were to be"
        f" expected in {duration(rise.within)}. Does a hook fail? `kratos-sync check` reads Kratos'"
        " configuration, `kratos-sync status --drift` tells more."
    )


def _ago(at: datetime, now: datetime) -> str:
    return f"{duration(now - at, units=1)} ago"
