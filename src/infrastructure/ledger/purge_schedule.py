"""Purging on a schedule, beside the relay."""

import threading
from datetime import timedelta
from random import uniform
from typing import Final

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from application.pipeline.logging import where
from application.ports.event_bus import LedgerUnavailable
from application.ports.purge import AnotherPurge, ClocksDiffer, Purge, Removed, Retention
from application.ports.unit_of_work import ConcurrencyConflict

FIRST_LOOK_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 60.0

log = structlog.get_logger()


class PurgeSchedule:
    """Purges when no purge began for so long, whoever made it; ``every`` is None for never.

    Many may run: each asks the ledger, about once a minute, and not all at once.
    """

    def __init__(
        self,
        purge: Purge,
        retention: Retention,
        every: timedelta | None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._purge = purge
        self._retention = retention
        self._every = every
        self._look_seconds = look_seconds

    def run(self, stopped: threading.Event) -> None:
        """Purge whenever it is due, until stopped; what goes wrong is logged, and tried again."""
        pause = FIRST_LOOK_SECONDS
        while self._every and not stopped.wait(pause * uniform(0.5, 1)):  # noqa: S311
            pause = self._look_seconds
            try:
                if self._purge.is_due(self._every):
                    self._run_once(stopped)
            except AnotherPurge as error:
                log.info("purge_left_to_another", reason=str(error))
            except (LedgerUnavailable, ClocksDiffer) as error:
                log.warning("purge_abandoned", reason=str(error))
            except (ConcurrencyConflict, SQLAlchemyError, psycopg.Error) as error:
                log.warning("purge_abandoned", error=type(error).__name__, at=where(error))

    def _run_once(self, stopped: threading.Event) -> None:
        report = self._purge.run(self._retention, stopped, lambda _: None)
        if report.removed != Removed():
            log.info(
                "purged",
                events=report.removed.events,
                attempts=report.removed.attempts,
                seconds=round(report.took.total_seconds(), 3),
                completed=report.completed,
            )
