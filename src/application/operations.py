"""Carrying out an operation: it is recorded before its first step, and with its outcome."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID, uuid4

import structlog

from kratos_sync.application.errors import name_of, summary
from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.application.ports.operations import (
    Interrupted,
    OperationRequest,
    Operations,
    Outcome,
    Progress,
)
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.domain.json_values import Json

BEAT_SECONDS: Final = 2.0
"""How often progress is recorded, and how soon a request to cancel is seen."""
END_SECONDS: Final = 10.0
"""How long to try to record the outcome; without it the operation reads as interrupted."""
POLL_SECONDS: Final = 0.5
STOP: Final = "stop"

log = structlog.get_logger()


class OperationCancelled(Exception):
    """Somebody asked the operation to stop. What it did before stays done."""


class OperationLost(Exception):
    """Somebody resumed the operation while this process could not reach the ledger."""


class RunningOperation:
    """An operation that this process carries out.

    A thread records its progress every ``beat_seconds``, however long a step takes. It ends with
    the outcome ``ends_as``, unless an error says otherwise. ``pause`` and ``report`` are as
    `recorded` takes them.
    """

    def __init__(
        self,
        operations: Operations,
        request: OperationRequest,
        total: int | None,
        *,
        beat_seconds: float,
        pause: Callable[[float], None],
        report: Callable[[Progress], None],
    ) -> None:
        self.ends_as = Outcome.COMPLETED
        self.id: int | None = None
        self._operations = operations
        self.request = request
        self._runner: UUID = uuid4()
        self._progress = Progress(0, total)
        self._beat_seconds = beat_seconds
        self._pause = pause
        self._report = report
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._cancelled_by: str | None = None
        self._lost = False

    def begin(self) -> None:
        """Record the operation; it is then running for everybody."""
        self.id = self._operations.begin(self.request, self._runner, self._progress.total)
        self._thread = threading.Thread(
            target=self._beat, args=(self.id,), name="operation", daemon=True
        )
        self._thread.start()

    @property
    def total(self) -> int | None:
        """How much is to be done, where that is known."""
        return self._progress.total

    def advance(self, done: int, total: int | None = None, **result: Json) -> None:
        """Say how much is done, after a step; recorded with the next beat. Raises as `pause`."""
        total = self.total if total is None else total
        self._progress = Progress(done, total, {**self._progress.result, **result})
        if self.id is None:
            self.begin()
        self._report(self._progress)
        self.pause(0)

    def note(self, **result: Json) -> None:
        """Say what came of it; recorded with the next beat, or at the end."""
        self._progress = self._progress._replace(result={**self._progress.result, **result})

    def check(self) -> None:
        """Return if the operation goes on. Raises OperationCancelled or OperationLost."""
        if self._lost:
            raise OperationLost(f"Operation {self.id} was resumed by somebody else")
        if self._cancelled_by is not None:
            raise OperationCancelled(f"Cancelled by {self._cancelled_by}")

    def pause(self, seconds: float) -> None:
        """Wait. Raises as `check`, or what ends the wait."""
        self._pause(seconds)
        self.check()

    def end(self, outcome: Outcome, error: BaseException | None = None) -> None:
        """Record the outcome; of an error its type alone. Waits some seconds for the ledger."""
        if self.id is None or self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        if outcome is Outcome.FAILED and error is not None:
            self.note(error=name_of(type(error)))
        deadline = time.monotonic() + END_SECONDS
        while True:
            try:
                self._operations.note(self.id, self._runner, self._progress, outcome)
            except (LedgerUnavailable, ConcurrencyConflict):
                if time.monotonic() > deadline:
                    log.warning("outcome_not_recorded", operation=self.id, outcome=outcome)
                    return
                time.sleep(POLL_SECONDS)
            else:
                return

    def _beat(self, number: int) -> None:
        while not self._ended.wait(self._beat_seconds):
            try:
                noted = self._operations.note(number, self._runner, self._progress)
            except Exception as error:  # noqa: BLE001  # the work goes on, whatever the record does
                log.warning("progress_not_recorded", operation=number, **summary(error))
                continue
            if noted is None:
                self._lost = True
                return
            self._cancelled_by = noted.cancel_requested_by


@contextmanager
def recorded(
    operations: Operations,
    request: OperationRequest,
    total: int | None = None,
    *,
    lazily: bool = False,
    beat_seconds: float | None = None,
    pause: Callable[[float], None] = time.sleep,
    report: Callable[[Progress], None] = lambda _: None,
) -> Iterator[RunningOperation]:
    """Record an operation for as long as the context lasts, and the outcome at its end.

    With ``lazily`` it is recorded from its first `advance` on: what does nothing leaves no record.
    ``report`` is called after each step. ``pause`` waits for so many seconds, between two steps for
    none, and may raise to end the operation. Raises CannotBeResumed, or what a port raises: then
    nothing was done.
    """
    beat = BEAT_SECONDS if beat_seconds is None else beat_seconds
    running = RunningOperation(
        operations, request, total, beat_seconds=beat, pause=pause, report=report
    )
    if not lazily:
        running.begin()
    try:
        yield running
    except BaseException as error:
        running.end(_outcome(error), error)
        raise
    running.end(running.ends_as)


def request_stop(operations: Operations, operation_id: int, stopping: RunningOperation) -> bool:
    """Ask an operation to stop after its step; False where it has ended or was asked before.

    By whom and why is recorded as an operation of its own: `stopping`.
    """
    is_asked = operations.request_cancel(operation_id, stopping.request.by)
    stopping.advance(int(is_asked))
    return is_asked


def _outcome(error: BaseException) -> Outcome:
    match error:
        case OperationCancelled():
            return Outcome.CANCELLED
        case Interrupted() | KeyboardInterrupt() | SystemExit() | OperationLost():
            return Outcome.INTERRUPTED
    return Outcome.FAILED
