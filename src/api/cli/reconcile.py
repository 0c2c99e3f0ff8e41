"""`kratos-sync reconcile`: compares all identities with Kratos, once or again and again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from random import uniform
from typing import TYPE_CHECKING, Any, Final

import click
import structlog

from kratos_sync.api.cli import options
from kratos_sync.api.cli.drift import by_field
from kratos_sync.api.cli.output import duration, echo, echo_json, identities, progress
from kratos_sync.api.cli.process import command_container
from kratos_sync.api.cli.stopping import Steps
from kratos_sync.application.ports.kratos import KratosError, KratosNotConfigured
from kratos_sync.application.ports.reconciliation import (
    AnotherReconciliation,
    Difference,
    Findings,
    ListingUnordered,
    Reconciliation,
    ReconciliationLost,
)
from kratos_sync.application.reconcile import (
    AnotherKratos,
    ConsumersAreBehind,
    DeletesRefused,
    Reconcile,
)
from kratos_sync.infrastructure.worker.shutdown import ShutdownRequested, ShutdownSignals

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container

TELL_SECONDS: Final = 30.0
"""How often progress is logged."""
LOOK_SECONDS: Final = 60.0
"""How often `--every` looks whether a reconciliation is due."""

log = structlog.get_logger()

Show = Callable[[Sequence[Difference]], None]


@dataclass(slots=True)
class Outcome:
    """What came of a reconciliation; `went_wrong` says why it did not end well."""

    dry_run: bool
    outcome: str = "failed: it did not begin"
    started_at: datetime | None = None
    resumed: bool = False
    findings: Findings | None = None
    unreadable: int = 0
    seconds: float = 0.0
    went_wrong: str | None = None
    is_anothers: bool = False
    """Whether another reconciliation is running, so that there was nothing to do."""


class Reconciler:
    """Runs reconciliations; a signal ends one after a page."""

    def __init__(self, container: "Container", rate: float | None) -> None:
        """Raises click.UsageError for a Kratos that is not configured."""
        self._container = container
        settings = container.settings()
        urls = (settings.kratos_public_url, settings.kratos_browser_url)
        self._public_urls = [url.get_secret_value() for url in urls if url is not None]
        self.shutdown = ShutdownSignals()
        try:
            self._kratos = container.kratos_admin(
                rate=rate, patient=True, pause=self.shutdown.pause
            )
        except KratosNotConfigured as error:
            raise click.UsageError(f"{error}: where is Kratos' Admin API?") from None

    def is_due(self, every: timedelta) -> bool:
        """Whether none began for so long; False while the database is unavailable."""
        look, due = Steps(), False
        with look:
            due = self._container.reconciliations().is_due(every)
        if look.ended_early:
            log.warning("ledger_unavailable", reason=look.ended_early)
        return due

    def run(self, dry_run: bool, allow_deletes: int, show: Show) -> Outcome:
        """Reconcile once."""
        outcome, began, steps = Outcome(dry_run), time.monotonic(), Steps()
        try:
            with steps:
                self._run(outcome, allow_deletes, show)
        except (DeletesRefused, AnotherKratos, ListingUnordered) as error:
            outcome.outcome = f"refused: {error}"
            outcome.went_wrong = f"Nobody was deleted: {error}."
        except ConsumersAreBehind as error:
            outcome.went_wrong = f"{error}: is a worker running?"
        except AnotherReconciliation as error:
            outcome.is_anothers, outcome.went_wrong = True, f"{error}."
        except (KratosError, ReconciliationLost) as error:
            outcome.went_wrong = f"{error}."
        if steps.ended_early:
            outcome.went_wrong = f"{steps.ended_early}."
        outcome.seconds = time.monotonic() - began
        if outcome.went_wrong and not outcome.outcome.startswith("refused"):
            outcome.outcome = f"failed: {outcome.went_wrong.rstrip('.')}"
        return outcome

    def _run(self, outcome: Outcome, allow_deletes: int, show: Show) -> None:
        reconcile = Reconcile(
            self._kratos,
            self._container.reconciliations(),
            public_urls=self._public_urls,
            now=self._container.synced_identities().now,
            wake_relay=self._container.wake_relay(),
            pause=self.shutdown.pause,
        )
        runs = reconcile.run(dry_run=outcome.dry_run, allow_deletes=allow_deletes)
        begun = next(runs)
        _copy(begun, outcome)
        pace = _PaceLog(begun.findings)
        with progress("Reconcile", max(begun.findings.held, 1)) as advance:
            for run in chain([begun], runs):
                _copy(run, outcome)
                advance(run.findings.identities)
                show(run.differences)
                pace.update(run.findings)
                self.shutdown.pause(0)
        outcome.outcome = "completed"


def _copy(run: Reconciliation, outcome: Outcome) -> None:
    outcome.started_at, outcome.resumed = run.started_at, run.resumed
    outcome.findings, outcome.unreadable = run.findings, run.findings.unreadable


class _PaceLog:
    """Logs now and then how fast a reconciliation goes, and how long it may still take."""

    def __init__(self, found: Findings) -> None:
        self._first = found.identities
        self._began = self._logged_at = time.monotonic()

    def update(self, found: Findings) -> None:
        now = time.monotonic()
        if now - self._logged_at < TELL_SECONDS:
            return
        self._logged_at = now
        rate = (found.identities - self._first) / (now - self._began)
        left = max(found.held + found.missing - found.identities, 0)
        log.info(
            "reconciling",
            identities=found.identities,
            a_second=round(rate),
            seconds_left=round(left / rate) if rate else None,
        )


def for_ever(
    reconciler: Reconciler, every: timedelta, allow_deletes: int, report: Callable[[Outcome], None]
) -> None:
    """Reconcile whenever no process began one for so long, until asked to stop.

    What goes wrong is reported, and tried again when it is due; what was interrupted is resumed.
    """
    with reconciler.shutdown as asked:
        try:
            while True:
                # Spread, where several processes run.
                asked.pause(uniform(0.1, 1) * min(LOOK_SECONDS, every.total_seconds() / 10))  # noqa: S311
                if reconciler.is_due(every):
                    outcome = reconciler.run(False, allow_deletes, lambda _: None)
                    if not outcome.is_anothers:
                        report(outcome)
        except ShutdownRequested:
            log.info("stopping")


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes."""
    return {
        "dry_run": outcome.dry_run,
        "outcome": outcome.outcome,
        "resumed": outcome.resumed,
        "started_at": outcome.started_at,
        "seconds": round(outcome.seconds, 3),
        **(outcome.findings or Findings()).to_record(),
        "unreadable": outcome.unreadable,
    }


def in_words(outcome: Outcome) -> list[str]:
    """Describe the outcome in some lines."""
    found = outcome.findings
    if found is None:
        return ["Nothing was compared."]
    took = duration(timedelta(seconds=outcome.seconds))
    rate = f", {found.identities / max(outcome.seconds, 0.001):,.0f} a second"
    resumed = ", resuming one that was interrupted"
    lines = [
        f"Compared {identities(found.identities)} with {found.held:,} here,"
        f" in {took}{resumed if outcome.resumed else rate}."
    ]
    counts = {
        "missing here": found.missing,
        f"different here ({by_field(found)})": found.stale,
        "here, and deleted in Kratos": found.deleted,
    }
    if found.repairs or found.unlisted:
        counts["not listed, and not deleted"] = found.unlisted - found.deleted
        did = "would be" if outcome.dry_run else "are being"
        lines += [f"  {number:>9,} {what}" for what, number in counts.items() if number]
        lines.append(f"{found.repairs:,} {did} repaired.")
    elif outcome.went_wrong is None:
        lines.append("They are the same.")
    if outcome.unreadable:
        lines.append(f"{identities(outcome.unreadable)} could not be read.")
    return lines


def _difference(difference: Difference) -> str:
    if difference.fields is None:
        return "missing here"
    return f"differs: {', '.join(difference.fields)}" if difference.fields else "deleted in Kratos"


@click.command()
@options.dry_run
@click.option("--verbose", is_flag=True, help="Name every identity that differs, and the fields.")
@click.option(
    "--every",
    type=options.Interval(),
    metavar="TIME",
    help="Repeat for ever, so often (15min, 1h, 1d) over all processes that run this.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="At most so many requests a second to Kratos.",
)
@click.option(
    "--allow-deletes",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Delete up to N identities; by default 1 % of all, or 10 if that is more.",
)
@options.as_json
def reconcile(
    *,
    dry_run: bool,
    verbose: bool,
    every: timedelta | None,
    rate: float | None,
    allow_deletes: int,
    as_json: bool,
) -> None:
    """Compare all identities with Kratos, and repair what differs.

    Reads Kratos' Admin API (KRATOS_ADMIN_URL). Every difference becomes an event for all
    consumers. Identities missing from the listing are looked up one by one, and only deleted if
    Kratos has no such identity. Ctrl-C stops after the page; the same command resumes there.
    Exits with 1 if deletions were refused, or it was not completed.
    """
    if every is not None and dry_run:
        raise click.UsageError("--every and --dry-run do not go together.")

    def report(outcome: Outcome) -> None:
        if as_json:
            echo_json(to_json(outcome))
        else:
            echo(*in_words(outcome))

    def show(differences: Sequence[Difference]) -> None:
        if verbose:
            echo(*(f"{each.identity_id}  {_difference(each)}" for each in differences), err=as_json)

    with command_container() as container:
        reconciler = Reconciler(container, rate)
        if every is not None:
            for_ever(reconciler, every, allow_deletes, report)
            return
        with reconciler.shutdown:
            outcome = reconciler.run(dry_run, allow_deletes, show)
        report(outcome)
    if outcome.went_wrong:
        raise click.ClickException(outcome.went_wrong)
