"""What a relay does now and then beside dispatching: purges and erasures."""

import threading
from abc import ABC, abstractmethod
from random import uniform
from typing import ClassVar, Final

import psycopg
import structlog
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.application.errors import summary
from kratos_sync.application.operations import OperationCancelled, OperationLost
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict

FIRST_SECONDS: Final = 2.0

log = structlog.get_logger()


class Schedule(ABC):
    """Runs a task every so many seconds; any number of processes may do so at the same time."""

    abandoned: ClassVar[str]
    """The log event of an error."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    @abstractmethod
    def run_once(self, stopped: threading.Event) -> None:
        """Do what is due, until stopped."""

    def run(self, stopped: threading.Event) -> None:
        """Run the task until stopped; errors are logged, and the task is retried next time."""
        pause = min(FIRST_SECONDS, self._seconds)
        while not stopped.wait(pause * uniform(0.5, 1)):  # noqa: S311
            pause = self._seconds
            try:
                self.run_once(stopped)
            except (LedgerUnavailable, OperationCancelled, OperationLost) as error:
                log.warning(self.abandoned, reason=str(error))
            except (ConcurrencyConflict, SQLAlchemyError, psycopg.Error) as error:
                log.warning(self.abandoned, **summary(error))
