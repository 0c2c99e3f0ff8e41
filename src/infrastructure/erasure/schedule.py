"""Erasing what came after an erasure, or was left by it, beside the relay."""

import threading
from random import uniform
from typing import Final

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from application.pipeline.logging import where
from application.ports.erasures import Erased, Erasures
from application.ports.event_bus import LedgerUnavailable
from application.ports.unit_of_work import ConcurrencyConflict

FIRST_LOOK_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 20.0
MOST_AT_ONCE: Final = 100
"""People who are looked at together."""
REST_SECONDS: Final = 0.05

log = structlog.get_logger()


class ErasureSchedule:
    """Looks at whoever is due, again and again. Many may run: each gets others."""

    def __init__(self, erasures: Erasures, look_seconds: float = LOOK_SECONDS) -> None:
        self._erasures = erasures
        self._look_seconds = look_seconds

    def run(self, stopped: threading.Event) -> None:
        """Erase until stopped; what goes wrong is logged, and tried again."""
        pause = min(FIRST_LOOK_SECONDS, self._look_seconds)
        while not stopped.wait(pause * uniform(0.5, 1)):  # noqa: S311
            pause = self._look_seconds
            try:
                while not stopped.is_set() and self._look(stopped):
                    stopped.wait(REST_SECONDS)
            except LedgerUnavailable as error:
                log.warning("erasure_abandoned", reason=str(error))
            except (ConcurrencyConflict, SQLAlchemyError, psycopg.Error) as error:
                log.warning("erasure_abandoned", error=type(error).__name__, at=where(error))

    def _look(self, stopped: threading.Event) -> bool:
        """Look at some who are due; False if nobody was."""
        people = self._erasures.due(MOST_AT_ONCE)
        if not people:
            return False
        erased, held = Erased(), 0
        for step in self._erasures.erase(people):
            erased, held = erased.plus(step), held + step.held
            if stopped.wait(REST_SECONDS):
                return False
        self._erasures.note(people, is_complete=not held)
        if erased._replace(held=0) != Erased() or held:
            log.info(
                "erased",
                people=len(people),
                events=erased.events,
                deliveries=erased.deliveries,
                held=held,
            )
        return True
