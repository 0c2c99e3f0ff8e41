"""What a reconciliation is told as: for people, and for machines."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta

from api.commands.quoting import echo
from api.commands.reconcile_run import Outcome
from api.commands.units import amount, duration, iso
from application.ports.reconciliation import Difference, Findings


def to_json(outcome: Outcome) -> dict[str, object]:
    """Give the object that `kratos-sync reconcile --json` prints."""
    return {
        "dry_run": outcome.dry_run,
        "outcome": outcome.outcome,
        "resumed": outcome.resumed,
        "started_at": iso(outcome.started_at),
        "seconds": round(outcome.seconds, 3),
        **asdict(outcome.findings or Findings()),
        "unreadable": outcome.unreadable,
    }


def in_words(outcome: Outcome) -> str:
    """Give some lines."""
    found = outcome.findings
    if found is None:
        return "Nothing was compared."
    took = duration(timedelta(seconds=outcome.seconds))
    rate = found.identities / max(outcome.seconds, 0.001)
    went_on = ", going on with one that was interrupted" if outcome.resumed else ""
    pace = "" if outcome.resumed else f", {rate:,.0f} a second"
    lines = [
        f"Compared {amount(found.identities, 'identity', 'identities')}"
        f" with {found.held:,} here, in {took}{pace}{went_on}."
    ]
    if not found.repairs and not found.unseen:
        if outcome.went_wrong is None:
            lines.append("They are the same.")
        return "\n".join([*lines, *_unreadable(outcome)])
    did = "would be" if outcome.dry_run else "are being"
    for number, what in (
        (found.missing, "not here"),
        (found.stale, f"different here ({_fields(found)})"),
        (found.gone, "here, and gone in Kratos"),
    ):
        if number:
            lines.append(f"  {number:>9,} {what}")
    if asked := found.unseen - found.gone:
        lines.append(f"  {asked:>9,} not listed, and not deleted")
    lines.append(f"{found.repairs:,} {did} repaired.")
    return "\n".join([*lines, *_unreadable(outcome)])


def shown(verbose: bool, as_json: bool) -> Callable[[Sequence[Difference]], None]:
    """Give what prints differences, to stderr where stdout is for a machine; or what does not."""
    if not verbose:
        return lambda _: None

    def show(differences: Sequence[Difference]) -> None:
        for each in differences:
            echo(f"{each.identity_id}  {_what(each)}", err=as_json)

    return show


def _what(difference: Difference) -> str:
    if difference.fields is None:
        return "not here"
    return f"differs: {', '.join(difference.fields)}" if difference.fields else "gone in Kratos"


def _fields(found: Findings) -> str:
    most = sorted(found.fields.items(), key=lambda each: -each[1])
    return ", ".join(f"{name} {number:,}" for name, number in most)


def _unreadable(outcome: Outcome) -> list[str]:
    if not outcome.unreadable:
        return []
    return [f"{amount(outcome.unreadable, 'identity', 'identities')} could not be read."]
