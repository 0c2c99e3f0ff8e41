"""Replaying: history again into one consumer, without holding up what it has to do now."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from kratos_sync.application.pipeline.retries import retry_on_conflict
from kratos_sync.application.ports.replay import Position, RecordedEvents, Stretch
from kratos_sync.application.rate_limiter import RateLimiter
from kratos_sync.application.subscriptions import CONSUMERS, SUBSCRIPTIONS

BATCHES_IN_HAND: Final = 4
"""Batches of a consumer's work, replayed or live, with which it gets no more to replay."""
POLL_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 600.0
"""How long a consumer may have its hands full without a gap."""
MOST_CONFLICTS: Final = 5


class ConsumerIsBehind(Exception):
    """For ten minutes the consumer had as much in hand as it may have: is a worker running?"""


class Progress(NamedTuple):
    """How far a replay is: how many events are owed again, and how many were left as they were.

    ``position`` is that of the last event; a replay that begins there leaves out nothing.
    """

    replayed: int
    left: int
    position: Position


def heard_by(consumer: str) -> tuple[str, ...]:
    """Give the wire names of the events that a consumer is subscribed to."""
    return tuple(
        event.name
        for event, consumers in SUBSCRIPTIONS.items()
        if consumer in {each.name for each in consumers}
    )


class Replay:
    """Owes a consumer past events, step by step, each step in a commit of its own.

    ``wake_relay`` is called after each; ``clock`` and ``pause`` are as RateLimiter takes them.
    """

    def __init__(
        self,
        events: RecordedEvents,
        wake_relay: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._events = events
        self._wake_relay = wake_relay
        self._clock = clock
        self._pause = pause

    def run(self, stretch: Stretch, rate: int) -> Iterator[Progress]:
        """Replay a stretch, at most ``rate`` events a second; tell after each step how far it is.

        No step begins while the consumer has its hands full: so what happens meanwhile waits for
        some batches at most. Raises ConsumerIsBehind, LedgerUnavailable or ConcurrencyConflict;
        what was replayed before stays owed.
        """
        room = BATCHES_IN_HAND * CONSUMERS[stretch.consumer].batch_size
        pace = RateLimiter(rate, clock=self._clock, pause=self._pause)
        replayed, left, position = 0, 0, None
        while True:
            self._wait_for_room(stretch.consumer, room)
            step = retry_on_conflict(
                partial(self._events.owe_again, stretch, position, min(pace.step, room)),
                MOST_CONFLICTS,
                self._pause,
                POLL_SECONDS,
            )
            if step.position is None:
                return
            replayed, left, position = replayed + step.replayed, left + step.left, step.position
            if step.replayed:
                self._wake_relay()
            yield Progress(replayed, left, position)
            pace.spend(step.replayed)

    def _wait_for_room(self, consumer: str, room: int) -> None:
        deadline = self._clock() + PATIENCE_SECONDS
        while self._events.in_flight(consumer, room) >= room:
            if self._clock() > deadline:
                raise ConsumerIsBehind(f"{consumer} had its hands full for ten minutes")
            self._pause(POLL_SECONDS)
