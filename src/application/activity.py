"""Following what happens: rates for a screen, and events and attempts one by one."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Final

from kratos_sync.application.ports.activity import (
    Activity,
    ActivityFilter,
    Counted,
    Position,
    SeenAttempt,
    SeenEvent,
)

LATE_SECONDS: Final = 10.0
"""Rows are looked for again for so long: a transaction may commit after a later one."""
MOST_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Rates:
    """Events recorded, and attempts by consumer and outcome, all per second."""

    events: float = 0.0
    attempts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def of(self, consumer: str | None, *outcomes: str) -> float:
        """The attempts with one of these outcomes, of one consumer or of all."""
        chosen = self.attempts.values() if consumer is None else [self.attempts.get(consumer, {})]
        return sum(each.get(outcome, 0.0) for each in chosen for outcome in outcomes)


class Meter:
    """Measures rates between looks.

    They are those between the two looks before: what a transaction had written and not committed
    at the one before is counted.
    """

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._looks: deque[Position] = deque(maxlen=3)

    def look(self) -> Rates | None:
        """Return the rates; None at the first two looks. Raises as Activity does."""
        self._looks.append(self._activity.position())
        if len(self._looks) < 3:  # noqa: PLR2004
            return None
        after, until, _ = self._looks
        seconds = (until.at - after.at).total_seconds()
        if seconds <= 0:  # the database's clock was set back
            return None
        counted = self._activity.counted(after, until)
        return _per_second(counted, seconds)


def _per_second(counted: Counted, seconds: float) -> Rates:
    return Rates(
        counted.events / seconds,
        {
            consumer: {outcome: number / seconds for outcome, number in outcomes.items()}
            for consumer, outcomes in counted.attempts.items()
        },
    )


@dataclass(frozen=True, slots=True)
class NewActivity:
    """What is new, in the order of its times; ``is_cut`` if there was more than can be shown."""

    seen: tuple[SeenEvent | SeenAttempt, ...]
    is_cut: bool = False


class Tail:
    """Gives events and attempts once each, beginning with those after the first look."""

    def __init__(
        self,
        activity: Activity,
        wanted: ActivityFilter,
        most: int = MOST_AT_ONCE,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._activity = activity
        self._wanted = wanted
        self._most = most
        self._clock = clock
        self._looks: deque[tuple[float, Position]] = deque()
        self._seen: set[object] = set()

    def look(self) -> NewActivity:
        """Return what is new since the last look. Raises as Activity does."""
        if not self._looks:
            self._looks.append((self._clock(), self._activity.position()))
            return NewActivity(())
        position = self._activity.position()
        after, most = self._looks[0][1], self._most + 1
        attempts = self._activity.attempts(after.attempt, self._wanted, most)
        events: list[SeenEvent] = []
        if self._wanted.has_events:
            events = self._activity.events(after.at, self._wanted, most)
        is_cut = self._is_too_much(attempts) or self._is_too_much(events)
        found: list[SeenEvent | SeenAttempt] = [*attempts[: self._most], *events[: self._most]]
        found.reverse()
        new = [each for each in found if each.id not in self._seen]
        self._seen = {each.id for each in found}
        if is_cut:  # or the rest would come with what is new at the next look
            self._looks.clear()
        self._remember(position)
        return NewActivity(tuple(sorted(new, key=_time_of)), is_cut)

    def _is_too_much(self, newest: Sequence[SeenEvent | SeenAttempt]) -> bool:
        return len(newest) > self._most and newest[self._most].id not in self._seen

    def _remember(self, position: Position) -> None:
        now = self._clock()
        self._looks.append((now, position))
        while len(self._looks) > 1 and self._looks[1][0] <= now - LATE_SECONDS:
            self._looks.popleft()


def _time_of(seen: SeenEvent | SeenAttempt) -> datetime:
    return seen.recorded_at if isinstance(seen, SeenEvent) else seen.ended_at
