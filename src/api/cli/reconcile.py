"""`kratos-sync reconcile`, and the JSON that ``--json`` prints.

One object for each reconciliation; durations are seconds, and keys are only ever added:

    {"dry_run": false, "outcome": "completed", "resumed": false, "seconds": 41.2,
     "started_at": "2026-07-01T12:00:00Z", "held": 1000000, "pages": 2000, "identities": 1000002,
     "known": 999999, "missing": 3, "stale": 12, "fields": {"traits": 12}, "unseen": 1, "gone": 1,
     "unheard": {"registration": 3, "settings": 12}, "unreadable": 0}

``outcome`` begins with `refused:` where nobody was deleted for a reason, and with `failed:` where
it did not come to its end; the same command then goes on where it stopped. ``fields`` says how many
of the stale differ in which field.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from random import uniform
from typing import Final

import click
import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.api.cli.options import Interval, amount, duration, iso
from kratos_sync.api.cli.output import echo, echo_json, progress
from kratos_sync.api.cli.process import expected_errors, opened_container, why_unavailable
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.kratos import KratosError, KratosNotConfigured
from kratos_sync.application.ports.reconciliation import (
    AnotherReconciliation,
    Difference,
    Findings,
    ListingUnordered,
    Reconciliation,
    ReconciliationLost,
)
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.application.reconcile import (
    AnotherKratos,
    ConsumersAreBehind,
    DeletesRefused,
    Reconcile,
)
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.worker.shutdown import ShutdownRequested, ShutdownSignals

TELL_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 60.0
"""How often one that runs for ever looks whether it is time."""

log = structlog.get_logger()

Show = Callable[[Sequence[Difference]], None]


@dataclass(slots=True)
class Outcome:
    """What came of a reconciliation; ``went_wrong`` says why it did not end well."""

    dry_run: bool
    outcome: str = "failed: it did not begin"
    started_at: datetime | None = None
    resumed: bool = False
    findings: Findings | None = None
    unreadable: int = 0
    seconds: float = 0.0
    went_wrong: str | None = None
    is_anothers: bool = False
    """Whether another one is at work, so that there was nothing to do."""


class Reconciler:
    """Reconciles, watched, and ended between two pages by whoever asks."""

    def __init__(self, container: Container, rate: float | None) -> None:
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
        """Whether none began for so long. Raises LedgerUnavailable."""
        return self._container.reconciliations().is_due(every)

    def run(self, dry_run: bool, allow_deletes: int, show: Show) -> Outcome:
        """Reconcile once."""
        outcome, began = Outcome(dry_run), time.monotonic()
        reconcile = Reconcile(
            self._kratos,
            self._container.reconciliations(),
            public_urls=self._public_urls,
            now=self._container.synced_identities().now,
            wake_relay=self._container.wake_relay(),
            pause=self.shutdown.pause,
        )
        try:
            self._watch(reconcile, outcome, allow_deletes, show)
        except ShutdownRequested:
            outcome.went_wrong = "Interrupted"
        except (DeletesRefused, AnotherKratos, ListingUnordered) as error:
            outcome.outcome = f"refused: {error}"
            outcome.went_wrong = f"Nobody was deleted: {error}."
        except ConsumersAreBehind as error:
            outcome.went_wrong = f"{error}: is a worker running?"
        except AnotherReconciliation as error:
            outcome.is_anothers, outcome.went_wrong = True, f"{error}."
        except (KratosError, ReconciliationLost) as error:
            outcome.went_wrong = f"{error}."
        except ConcurrencyConflict:
            outcome.went_wrong = "PostgreSQL was too busy."
        except (LedgerUnavailable, SQLAlchemyError, psycopg.Error) as error:
            outcome.went_wrong = f"{why_unavailable(error)}."
        outcome.seconds = time.monotonic() - began
        if outcome.went_wrong and not outcome.outcome.startswith("refused"):
            outcome.outcome = f"failed: {outcome.went_wrong.rstrip('.')}"
        return outcome

    def _watch(
        self, reconcile: Reconcile, outcome: Outcome, allow_deletes: int, show: Show
    ) -> None:
        runs = reconcile.run(dry_run=outcome.dry_run, allow_deletes=allow_deletes)
        begun = next(runs)
        _copy(begun, outcome)
        pace = _Pace(begun.findings)
        with progress("Reconcile", max(begun.findings.held, 1)) as tell:
            for run in chain([begun], runs):
                _copy(run, outcome)
                tell(run.findings.identities)
                show(run.differences)
                pace.tell(run.findings)
                self.shutdown.pause(0)
        outcome.outcome = "completed"


class _Pace:
    """Tells the log, now and then, how fast it goes and how long it may take."""

    def __init__(self, found: Findings) -> None:
        self._first = found.identities
        self._began = self._told_at = time.monotonic()

    def tell(self, found: Findings) -> None:
        """Tell, if it is time."""
        now = time.monotonic()
        if now - self._told_at < TELL_SECONDS:
            return
        self._told_at = now
        rate = (found.identities - self._first) / (now - self._began)
        left = max(found.held + found.missing - found.identities, 0)
        log.info(
            "reconciling",
            identities=found.identities,
            a_second=round(rate),
            seconds_left=round(left / rate) if rate else None,
        )


def _copy(run: Reconciliation, outcome: Outcome) -> None:
    outcome.started_at, outcome.resumed = run.started_at, run.resumed
    outcome.findings, outcome.unreadable = run.findings, run.findings.unreadable


def for_ever(
    reconciler: Reconciler, every: timedelta, allow_deletes: int, tell: Callable[[Outcome], None]
) -> None:
    """Reconcile whenever none began for so long, whoever made it, until asked to stop.

    What goes wrong is told, and tried again when it is time; what was interrupted goes on.
    """
    with reconciler.shutdown as asked:
        try:
            while True:
                # Not all at once, where many run.
                asked.pause(uniform(0.1, 1) * min(LOOK_SECONDS, every.total_seconds() / 10))  # noqa: S311
                if _is_due(reconciler, every):
                    outcome = reconciler.run(False, allow_deletes, lambda _: None)
                    if not outcome.is_anothers:
                        tell(outcome)
        except ShutdownRequested:
            log.info("stopping")


def _is_due(reconciler: Reconciler, every: timedelta) -> bool:
    try:
        return reconciler.is_due(every)
    except (LedgerUnavailable, SQLAlchemyError) as error:
        log.warning("ledger_unavailable", reason=why_unavailable(error))
        return False


def to_json(outcome: Outcome) -> dict[str, object]:
    """Give the object that `kratos-sync reconcile --json` prints."""
    return {
        "dry_run": outcome.dry_run,
        "outcome": outcome.outcome,
        "resumed": outcome.resumed,
        "started_at": iso(outcome.started_at),
        "seconds": round(outcome.seconds, 3),
        **(outcome.findings or Findings()).to_record(),
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
    if not found.repairs and not found.unlisted:
        if outcome.went_wrong is None:
            lines.append("They are the same.")
        return "\n".join([*lines, *_unreadable(outcome)])
    did = "would be" if outcome.dry_run else "are being"
    for number, what in (
        (found.missing, "not here"),
        (found.stale, f"different here ({_fields(found)})"),
        (found.deleted, "here, and gone in Kratos"),
    ):
        if number:
            lines.append(f"  {number:>9,} {what}")
    if asked := found.unlisted - found.deleted:
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


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would change, and in which fields.")
@click.option("--verbose", is_flag=True, help="Name every identity that differs, and the fields.")
@click.option(
    "--every",
    type=Interval(),
    metavar="TIME",
    help="For ever, so often (15min, 1h, 1d), one of however many run.",
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
    help="Delete up to N people; else up to 1 % of all, or 10 if that is more.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def reconcile(
    *,
    dry_run: bool,
    verbose: bool,
    every: timedelta | None,
    rate: float | None,
    allow_deletes: int,
    as_json: bool,
) -> None:
    """Compare everybody here with Kratos' Admin API (KRATOS_ADMIN_URL), and repair what differs.

    Every difference becomes an event that all consumers hear. Who is not listed is asked for one by
    one, and only deleted if Kratos says that it has no such identity. Ctrl-C stops after the page;
    the same command goes on there. Exits with 1 if anything was refused, or it did not come to its
    end.
    """
    if every is not None and dry_run:
        raise click.UsageError("--every and --dry-run do not go together.")
    with opened_container() as container, expected_errors():
        reconciler = Reconciler(container, rate)

        def tell(outcome: Outcome) -> None:
            if as_json:
                echo_json(to_json(outcome))
            else:
                echo(*in_words(outcome).split("\n"))

        if every is not None:
            for_ever(reconciler, every, allow_deletes, tell)
            return
        show = shown(verbose, as_json)
        with reconciler.shutdown:
            outcome = reconciler.run(dry_run, allow_deletes, show)
        tell(outcome)
    if outcome.went_wrong:
        raise click.ClickException(outcome.went_wrong)
