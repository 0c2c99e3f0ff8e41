"""What `kratos-sync status` tells of comparisons with Kratos, in words and as JSON."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kratos_sync.api.cli import output as terminal
from kratos_sync.api.cli.options import amount, duration, iso
from kratos_sync.application.drift import Drift, Rise
from kratos_sync.application.missed_webhooks import HOOKS, NEWER, count_missed
from kratos_sync.application.ports.reconciliation import Findings, PastReconciliation

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
    if last and (newer := last.findings.missed_webhooks.get(NEWER)):
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
    unheard = newest.findings.missed_webhooks
    by_hook = ", ".join(f"{hook} {unheard[hook]:,}" for hook in HOOKS if unheard.get(hook))
    return (
        f"The comparison with Kratos {_ago(newest.started_at, now)} repaired {rise.missed:,} that"
        f" webhooks should have told ({by_hook}); from those before, {rise.usual:,.0f} were to be"
        f" expected in {duration(rise.within)}. Does a hook fail? `kratos-sync check` reads Kratos'"
        " configuration, `kratos-sync status --drift` tells more."
    )


def _ago(at: datetime, now: datetime) -> str:
    return f"{duration(now - at, units=1)} ago"


NEVER: Final = "never"
BAR_WIDTH: Final = 12
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_WHAT_IS_MISSED: Final = {
    "registration": "not here, and made since the comparison before: no registration of theirs was"
    " heard, unless an administrator made them",
    "settings": "differ in traits or addresses: no change of settings of theirs was heard, unless"
    " an administrator made it",
    "verification": "differ in verifiable_addresses: no verification, recovery or code login of"
    " theirs was heard",
    "login": "differ in updated_at alone: no login or change of credentials of theirs was heard",
    "on_its_way": "heard, and not consumed yet",
    "old": "not here, and made before the comparison before: nobody ever told",
    "admin": "differ in what administrators change, and no webhook tells",
    "untold": "differ in what no webhook tells: metadata_admin, large integers, a mail sent,"
    " or that there are no addresses",
    "newer": "newer here than in Kratos: a clock is wrong, Kratos was restored from a backup, or a"
    " call was forged",
    "revived": "deleted here, and there in Kratos",
    "other": "differ in other fields",
}


def print_drift(drift: Drift, now: datetime, *, can_ask: bool) -> None:
    """Print what is known of comparisons with Kratos on standard output."""
    console, folded = terminal.console()
    if drift.newest is None:
        for heading, line in drift_rows(drift, now, can_ask=can_ask):
            console.print(f"{heading} {line}")
        return
    if needs := list(drift_attention(drift, now, can_ask=can_ask)):
        console.print("Needs attention:", style="bold red")
        terminal.print_list(console, needs, folded)
        console.print()
    console.print(drift_table(drift))
    if drift.last:
        repaired = amount(drift.last.findings.repairs, "identity", "identities")
        began = duration(now - drift.last.started_at, units=1)
        console.print()
        console.print(
            f"{repaired} repaired {began} ago{':' if drift.last.findings.repairs else ''}"
        )
        for line in missed_lines(drift.last.findings, folded):
            console.print(line)


def drift_rows(drift: Drift, now: datetime, *, can_ask: bool) -> Iterator[tuple[str, str]]:
    """Give a heading and a line for the newest comparison, and for the last that is over."""
    newest, last = drift.newest, drift.last
    if newest is None:
        yield "Reconciled", NEVER if can_ask else f"{NEVER}: KRATOS_ADMIN_URL is not set"
        return
    if not newest.ended_at:
        began = duration(now - newest.started_at, units=1)
        how = f"for {began}" if drift.is_running else f"interrupted, began {began} ago"
        yield "Reconciling", f"{how}: {in_short(newest.findings)}"
    if last is None:
        yield "Reconciled", NEVER
        return
    refused = "" if last.outcome == "completed" else ", refused"
    ago = duration(now - last.started_at, units=1)
    yield "Reconciled", f"{ago} ago{refused}: {in_short(last.findings)}"


def in_short(found: Findings) -> str:
    """Give one line."""
    told = [
        f"{number:,} {what}"
        for number, what in (
            (found.missing, "missing"),
            (found.stale, "stale"),
            (found.deleted, "gone"),
            (found.unreadable, "unreadable"),
        )
        if number
    ]
    return f"{found.identities:,} compared, {', '.join(told) or 'all the same'}"


def missed_lines(found: Findings, width: int) -> Iterator[str]:
    """Say what was repaired, by the webhook that would have told it; folded to this width."""
    by_hook = [
        (found.missed_webhooks[kind], said)
        for kind, said in _WHAT_IS_MISSED.items()
        if found.missed_webhooks.get(kind)
    ]
    if found.deleted:
        by_hook.append((found.deleted, "deleted in Kratos, which no webhook tells"))
    if found.fields:
        most = sorted(found.fields.items(), key=lambda each: -each[1])
        differ = ", ".join(f"{name} {number:,}" for name, number in most)
        by_hook.append((found.stale, f"differed, by field: {differ}"))
    for number, said in by_hook:
        yield from terminal.fold(said, width, f"  {number:>9,}  ")


def drift_table(drift: Drift) -> terminal.Table:
    """Give a line for each comparison, newest first; bars are for what no webhook was heard of."""
    table = terminal.Table()
    table.add_column("BEGAN, UTC")
    for heading in ("COMPARED", "MISSING", "STALE", "GONE", "UNHEARD"):
        table.add_column(heading, justify="right")
    table.add_column()
    longest = max((count_missed(each.findings.missed_webhooks) for each in drift.past), default=0)
    for each in drift.past:
        found, number = each.findings, count_missed(each.findings.missed_webhooks)
        table.add_row(
            f"{each.started_at.astimezone(UTC):%Y-%m-%d %H:%M}",
            f"{found.identities:,}",
            f"{found.missing:,}",
            f"{found.stale:,}",
            f"{found.deleted:,}",
            f"{number:,}",
            " ".join(filter(None, (_bar(number, longest), _end(each, drift)))),
        )
    return table


def drift_json(drift: Drift) -> dict[str, Any]:
    """Give the object `drift` of `kratos-sync status --json`."""
    rise = drift.rise
    return {
        "running": drift.is_running,
        "rise": rise
        and {
            "missed": rise.missed,
            "usual": round(rise.usual, 3),
            "seconds": rise.within.total_seconds(),
        },
        "reconciliations": [
            {
                "started_at": iso(each.started_at),
                "seen_at": iso(each.seen_at),
                "ended_at": iso(each.ended_at),
                "outcome": each.outcome,
                **each.findings.to_record(),
                "missed": count_missed(each.findings.missed_webhooks),
            }
            for each in drift.past
        ],
    }


def _end(each: PastReconciliation, drift: Drift) -> str:
    if each.ended_at is None:
        return "running" if drift.is_running and each is drift.newest else "interrupted"
    return "" if each.outcome == "completed" else "refused"


def _bar(number: int, longest: int) -> str:
    eighths = round(8 * BAR_WIDTH * number / longest) if longest else 0
    if number and not eighths:
        eighths = 1
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
