"""How much is recorded and delivered: counted while the console runs, and kept for an hour."""

import threading
from collections import Counter, deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import structlog

from kratos_sync.application.errors import summary
from kratos_sync.application.ports.activity import Activity, Position

EVERY_SECONDS: Final = 5.0
MINUTES: Final = 60
RECENT: Final = timedelta(seconds=30)
RECORDED: Final = ""
"""In place of a consumer: events that were recorded."""

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class Sample(NamedTuple):
    """What was counted between two looks at the ledger."""

    since: datetime
    until: datetime
    succeeded: Counter[str]
    failed: Counter[str]


class Rates:
    """Counts new events and attempts every few seconds, in a thread of its own."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._samples: deque[Sample] = deque(maxlen=round(MINUTES * 60 / EVERY_SECONDS))

    def run(self, stopped: threading.Event) -> None:
        """Count until stopped; what cannot be counted is left out."""
        position: Position | None = None
        while not stopped.is_set():
            try:
                now = self._activity.position()
                if position is not None:
                    self._samples.append(self._counted(position, now))
                position = now
            except Exception as error:  # noqa: BLE001  # the page says what it has
                _log.warning("rates_not_counted", **summary(error))
            stopped.wait(EVERY_SECONDS)

    def _counted(self, before: Position, now: Position) -> Sample:
        counted = self._activity.counted(before, now)
        succeeded, failed = Counter({RECORDED: counted.events}), Counter[str]()
        for consumer, outcomes in counted.attempts.items():
            succeeded[consumer] += outcomes.get("succeeded", 0)
            failed[consumer] += outcomes.get("failed", 0) + outcomes.get("gave_up", 0)
        return Sample(before.at, now.at, succeeded, failed)

    def a_second(self, consumer: str) -> float | None:
        """How much succeeded a second lately; None before anything was counted."""
        samples = list(self._samples)
        if not samples:
            return None
        recent = [each for each in samples if each.until > samples[-1].until - RECENT]
        seconds = sum((each.until - each.since).total_seconds() for each in recent)
        return sum(each.succeeded[consumer] for each in recent) / seconds if seconds else None

    def a_minute(self, consumer: str) -> Sequence[int]:
        """How much succeeded in each of the last sixty minutes, the latest last."""
        minutes = [0] * MINUTES
        samples = list(self._samples)
        for each in samples:
            ago = int((samples[-1].until - each.until).total_seconds() // 60)
            if ago < MINUTES:
                minutes[MINUTES - 1 - ago] += each.succeeded[consumer]
        return minutes

    def in_the_last_hour(self, consumer: str) -> tuple[int, int]:
        """How much succeeded, and how many attempts failed, as far as it was counted."""
        samples = list(self._samples)
        return (
            sum(each.succeeded[consumer] for each in samples),
            sum(each.failed[consumer] for each in samples),
        )


def sparkline(values: Sequence[int], width: int = 150, height: int = 28) -> str:
    """The points of a line through the values, for an SVG of this size."""
    most = max(values, default=0) or 1
    step = width / max(len(values) - 1, 1)
    return " ".join(
        f"{number * step:.1f},{height - 2 - value / most * (height - 4):.1f}"
        for number, value in enumerate(values)
    )
