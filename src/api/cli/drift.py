"""What `kratos-sync status` reports of reconciliations and missed webhooks."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from kratos_sync.api.amounts import ago, amount, duration
from kratos_sync.api.attention import drift_attention
from kratos_sync.api.cli.output import Line, echo, echo_attention, fold, rows
from kratos_sync.api.views import in_short
from kratos_sync.application.drift import Drift
from kratos_sync.application.ports.reconciliation import Findings, PastReconciliation

NEVER: Final = "never"
BAR_WIDTH: Final = 12
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_BY_KIND: Final = {
    "registration": "missing, created since the previous reconciliation: no webhook of the"
    " registration was received, unless an administrator created them",
    "settings": "differ in traits or addresses: no webhook of a settings flow was received, unless"
    " an administrator changed them",
    "verification": "differ in verifiable_addresses: no webhook of a verification, recovery or code"
    " login was received",
    "login": "differ in updated_at alone: no webhook of a login or change of credentials was"
    " received",
    "on_its_way": "received, and not processed yet",
    "old": "missing, created before the previous reconciliation: no webhook was ever received",
    "admin": "differ in what administrators change, and no webhook reports",
    "untold": "differ in what no webhook reports: metadata_admin, large integers, a mail sent,"
    " or that there are no addresses",
    "newer": "newer here than in Kratos: a clock is wrong, Kratos was restored from a backup, or a"
    " call was forged",
    "revived": "deleted here, and present in Kratos",
    "other": "differ in other fields",
}


def drift_rows(drift: Drift, now: datetime, *, can_ask: bool) -> Iterator[tuple[str, str]]:
    """Yield a heading and a line for a reconciliation that runs, and for the last that ended."""
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
    refused = ", refused" if drift.state_of(last) == "refused" else ""
    yield "Reconciled", f"{ago(last.started_at, now)}{refused}: {in_short(last.findings)}"


def print_drift(drift: Drift, now: datetime, *, can_ask: bool) -> None:
    """Print all that is known of reconciliations."""
    if drift.newest is None:
        echo(*(f"{heading} {line}" for heading, line in drift_rows(drift, now, can_ask=can_ask)))
        return
    needed = drift_attention(drift, now, can_ask=can_ask)
    if echo_attention(each.with_command for each in needed):
        echo("")
    echo(*_table(drift))
    if drift.may_have_older:
        echo(f"The newest {len(drift.past)}; kratos_sync.reconciliations has older ones.")
    if drift.last:
        found = drift.last.findings
        end = ":" if found.repairs else ""
        echo(
            "",
            f"{amount(found.repairs, 'identity')} repaired {ago(drift.last.started_at, now)}{end}",
        )
        for number, what in _repaired(found):
            echo(*fold(what, f"  {number:>9,}  "))


def _repaired(found: Findings) -> Iterator[tuple[int, str]]:
    for kind, what in _BY_KIND.items():
        if number := found.missed_webhooks.get(kind):
            yield number, what
    if found.deleted:
        yield found.deleted, "deleted in Kratos, which no webhook reports"
    if found.fields:
        yield found.stale, f"differed, by field: {by_field(found)}"


def by_field(found: Findings) -> str:
    """List the fields that differed, the most frequent first."""
    most = sorted(found.fields.items(), key=lambda each: -each[1])
    return ", ".join(f"{name} {number:,}" for name, number in most)


def _table(drift: Drift) -> Iterator[Line]:
    numbers = ("COMPARED", "MISSING", "STALE", "DELETED", "MISSED")
    longest = max((each.findings.missed for each in drift.past), default=0)

    def end(each: PastReconciliation) -> str:
        state = drift.state_of(each)
        return "" if state == "completed" else state

    def cells(each: PastReconciliation) -> tuple[str, ...]:
        found = each.findings
        counts = (found.identities, found.missing, found.stale, found.deleted, found.missed)
        return (
            f"{each.started_at.astimezone(UTC):%Y-%m-%d %H:%M}",
            *(f"{count:,}" for count in counts),
            " ".join(filter(None, (_bar(found.missed, longest), end(each)))),
        )

    return rows(("BEGAN, UTC", *numbers, ""), map(cells, drift.past), right=numbers)


def _bar(number: int, longest: int) -> str:
    eighths = round(8 * BAR_WIDTH * number / longest) if longest else 0
    if number and not eighths:
        eighths = 1
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def drift_json(drift: Drift) -> dict[str, Any]:
    """Return the object `drift` of `kratos-sync status --json`."""
    rise = drift.rise
    return {
        "running": drift.is_running,
        "rise": rise
        and {"missed": rise.missed, "usual": round(rise.usual, 3), "seconds": rise.within},
        "reconciliations": [
            {
                "started_at": each.started_at,
                "seen_at": each.seen_at,
                "ended_at": each.ended_at,
                "outcome": each.outcome,
                **each.findings.to_record(),
                "missed": each.findings.missed,
            }
            for each in drift.past
        ],
    }
