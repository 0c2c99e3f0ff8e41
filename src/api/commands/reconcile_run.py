"""Reconciliations at the command line: one, or one after another for ever."""

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

from api.commands.lifeline import Interruptions, Stopped
from api.commands.process import why_unavailable
from api.commands.progress import progress
from application.ports.event_bus import LedgerUnavailable
from application.ports.kratos import KratosError, KratosNotConfigured
from application.ports.reconciliation import (
    AnotherReconciliation,
    Difference,
    Findings,
    ListingUnordered,
    Reconciliation,
    ReconciliationLost,
)
from application.ports.unit_of_work import ConcurrencyConflict
from application.reconcile import AnotherKratos, ConsumersAreBehind, DeletesRefused, Reconcile
from infrastructure.container import Container

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
        self.interruptions = Interruptions()
        try:
            self._kratos = container.kratos_admin(
                rate=rate, patient=True, pause=self.interruptions.pause
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
            now=self._container.asked_identities().now,
            wake_relay=self._container.wake_relay(),
            pause=self.interruptions.pause,
        )
        try:
            self._watch(reconcile, outcome, allow_deletes, show)
        except Stopped:
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
                self.interruptions.pause(0)
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
    outcome.findings, outcome.unreadable = run.findings, run.unreadable


def for_ever(
    reconciler: Reconciler, every: timedelta, allow_deletes: int, tell: Callable[[Outcome], None]
) -> None:
    """Reconcile whenever none began for so long, whoever made it, until asked to stop.

    What goes wrong is told, and tried again when it is time; what was interrupted goes on.
    """
    with reconciler.interruptions as asked:
        try:
            while True:
                # Not all at once, where many run.
                asked.pause(uniform(0.1, 1) * min(LOOK_SECONDS, every.total_seconds() / 10))  # noqa: S311
                if _is_due(reconciler, every):
                    outcome = reconciler.run(False, allow_deletes, lambda _: None)
                    if not outcome.is_anothers:
                        tell(outcome)
        except Stopped:
            log.info("stopping")


def _is_due(reconciler: Reconciler, every: timedelta) -> bool:
    try:
        return reconciler.is_due(every)
    except (LedgerUnavailable, SQLAlchemyError) as error:
        log.warning("ledger_unavailable", reason=why_unavailable(error))
        return False
