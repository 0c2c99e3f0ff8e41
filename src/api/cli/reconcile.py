"""`kratos-sync reconcile`: compares all identities with Kratos, once or again and again."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import uniform
from typing import TYPE_CHECKING, Any, Final

import click
import structlog

from kratos_sync.api.amounts import amount, duration
from kratos_sync.api.cli import options
from kratos_sync.api.cli.drift import by_field
from kratos_sync.api.cli.output import echo, echo_json, progress
from kratos_sync.api.cli.process import Steps, command_container
from kratos_sync.application.operation_scopes import ReconcileScope
from kratos_sync.application.operations import recorded
from kratos_sync.application.ports.operations import How, Operation, OperationRequest
from kratos_sync.application.ports.reconciliation import (
    AnotherReconciliation,
    Difference,
    Findings,
    ListingUnordered,
    Reconciliation,
)
from kratos_sync.application.reconcile import AnotherKratos, DeletesRefused
from kratos_sync.infrastructure.worker.shutdown import ShutdownRequested, ShutdownSignals

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container

LOG_SECONDS: Final = 30.0
"""How often progress is logged."""
POLL_SECONDS: Final = 60.0
"""How often `--every` checks whether a reconciliation is due."""

log = structlog.get_logger()

Show = Callable[[Sequence[Difference]], None]


@dataclass(slots=True)
class Outcome:
    """The outcome of a reconciliation; `went_wrong` says why it did not end well."""

    dry_run: bool
    outcome: str = "failed: it did not begin"
    started_at: datetime | None = None
    resumed: bool = False
    findings: Findings | None = None
    seconds: float = 0.0
    went_wrong: str | None = None
    is_anothers: bool = False
    """Whether another reconciliation is running, so that there was nothing to do."""


class Reconciler:
    """Runs reconciliations; a signal ends one after a page, and so does a request to cancel it.

    Each is recorded as an operation: on a schedule from its first repair on, and no dry run.
    """

    def __init__(
        self,
        container: "Container",
        rate: float | None,
        request: OperationRequest,
        shutdown: ShutdownSignals | None = None,
    ) -> None:
        """The signals are those of the process, if it has any. Raises KratosNotConfigured."""
        container.kratos_admin()  # without its address nothing is recorded
        self._container = container
        self._rate = rate
        self._request = request
        self.shutdown = shutdown or ShutdownSignals()

    def is_due(self, every: timedelta) -> bool:
        """Whether none began for so long; False while the database is unavailable."""
        self._container.observer().turned("reconcile")
        steps, due = Steps(), False
        with steps:
            due = self._container.reconciliations().is_due(every)
        if steps.ended_early:
            log.warning("ledger_unavailable", reason=steps.ended_early)
        return due

    def run(self, dry_run: bool, allow_deletes: int, show: Show) -> Outcome:
        """Reconcile once."""
        outcome, began, steps = Outcome(dry_run), time.monotonic(), Steps()
        scope = ReconcileScope(allow_deletes, self._rate, dry_run)
        recording = recorded(
            self._container.operations(),
            self._request,
            lazily=dry_run or self._request.how is How.SCHEDULE,
            pause=self._pause,
        )
        try:
            with ExitStack() as stack, steps, recording as operation:
                report = _Report(outcome, show, stack)
                self._container.actions().reconcile(scope, operation, report)
                outcome.outcome = "completed"
        except (DeletesRefused, AnotherKratos, ListingUnordered) as error:
            outcome.outcome = f"refused: {error}"
            outcome.went_wrong = f"No identity was deleted: {error}."
        except AnotherReconciliation as error:
            outcome.is_anothers, steps.ended_early = True, str(error)
        if steps.ended_early:
            outcome.outcome = f"failed: {steps.ended_early}"
            outcome.went_wrong = f"{steps.ended_early}."
        outcome.seconds = time.monotonic() - began
        return outcome

    def _pause(self, seconds: float) -> None:
        self._container.observer().turned("reconcile")
        self.shutdown.pause(seconds)


class _Report:
    """Notes how far a reconciliation is, shows it on a terminal, and logs it now and then."""

    def __init__(self, outcome: Outcome, show: Show, stack: ExitStack) -> None:
        self._outcome = outcome
        self._show = show
        self._stack = stack
        self._bar: Callable[[int], None] | None = None
        self._first = 0
        self._began = self._logged_at = 0.0

    def __call__(self, run: Reconciliation) -> None:
        found, now = run.findings, time.monotonic()
        self._outcome.started_at, self._outcome.resumed = run.started_at, run.resumed
        self._outcome.findings = found
        if self._bar is None:
            self._bar = self._stack.enter_context(progress("Reconcile", max(found.held, 1)))
            self._first, self._began, self._logged_at = found.identities, now, now
        elif now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            _log_progress(found, (found.identities - self._first) / (now - self._began))
        self._bar(found.identities)
        self._show(run.differences)


def _log_progress(found: Findings, rate: float) -> None:
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
    """Do as `repeat` does until a signal of this process."""
    with reconciler.shutdown:
        repeat(reconciler, every, allow_deletes, report)


def repeat(
    reconciler: Reconciler, every: timedelta, allow_deletes: int, report: Callable[[Outcome], None]
) -> None:
    """Reconcile until asked to stop, whenever no process began a reconciliation for so long.

    One that failed is reported and retried when it is due; an interrupted one is resumed.
    """
    try:
        while True:
            # Random, so that several processes do not all check at once.
            pause = uniform(0.1, 1) * min(POLL_SECONDS, every.total_seconds() / 10)  # noqa: S311
            reconciler.shutdown.pause(pause)
            if reconciler.is_due(every):
                outcome = reconciler.run(False, allow_deletes, lambda _: None)
                if not outcome.is_anothers:
                    report(outcome)
    except ShutdownRequested:
        log.info("stopping")


def resume_reconcile(container: "Container", past: Operation, request: OperationRequest) -> Steps:
    """Go on with an interrupted run, if it is not a day old, or begin one.

    Raises CannotBeResumed or KratosNotConfigured.
    """
    scope = ReconcileScope.of(past)
    reconciler = Reconciler(container, scope.rate, request)
    with reconciler.shutdown:
        outcome = reconciler.run(scope.dry_run, scope.allow_deletes, lambda _: None)
    repairs = 0 if outcome.findings is None else outcome.findings.repairs
    return Steps(repairs, outcome.went_wrong and outcome.went_wrong.removesuffix("."))


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes."""
    return {
        "dry_run": outcome.dry_run,
        "outcome": outcome.outcome,
        "resumed": outcome.resumed,
        "started_at": outcome.started_at,
        "seconds": round(outcome.seconds, 3),
        **(outcome.findings or Findings()).to_record(),
    }


def in_words(outcome: Outcome) -> list[str]:
    """Describe the outcome in some lines."""
    found, seconds = outcome.findings, outcome.seconds
    if found is None:
        return ["Nothing was compared."]
    how = f"{found.identities / max(seconds, 0.001):,.0f} a second"
    if outcome.resumed:
        how = "resuming one that was interrupted"
    lines = [
        f"Compared {amount(found.identities, 'identity')} with {found.held:,} here,"
        f" in {duration(timedelta(seconds=seconds))}, {how}."
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
    if found.unreadable:
        lines.append(f"{amount(found.unreadable, 'identity')} could not be read.")
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
    type=options.interval,
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
@options.by
@options.why
@options.as_json
def reconcile(
    *,
    dry_run: bool,
    verbose: bool,
    every: timedelta | None,
    rate: float | None,
    allow_deletes: int,
    by: str,
    reason: str | None,
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

    with command_container(process=None if every is None else "reconcile") as container:
        how = How.CLI if every is None else How.SCHEDULE
        scope = ReconcileScope(allow_deletes, rate).to_json()
        request = OperationRequest("reconcile", by, how, reason, scope=scope)
        reconciler = Reconciler(container, rate, request)
        if every is not None:
            container.health().started()
            for_ever(reconciler, every, allow_deletes, report)
            return
        with reconciler.shutdown:
            outcome = reconciler.run(dry_run, allow_deletes, show)
        report(outcome)
    if outcome.went_wrong:
        raise click.ClickException(outcome.went_wrong)
