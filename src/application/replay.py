"""Replaying recorded events to one consumer, without holding up its live work."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from kratos_sync.application.pipeline.outcomes import retry_on_conflict
from kratos_sync.application.ports.position import Position
from kratos_sync.application.ports.replay import EventRange, RecordedEvents
from kratos_sync.application.rate_limiter import RateLimiter

BATCHES_IN_FLIGHT: Final = 4
"""With so many batches in flight, replayed or live, a consumer gets no more to replay."""
POLL_SECONDS: Final = 0.1
BUSY_SECONDS: Final = 600.0
"""How long a consumer may have as many in flight without a gap."""
MOST_CONFLICTS: Final = 5


class ConsumerIsBehind(Exception):
    """The consumer had too many deliveries in flight for ten minutes: is a worker running?"""


class Progress(NamedTuple):
    """How many events a replay has redelivered, and how many it ``left`` as they were.

    ``position`` is that of the last event; a replay that begins there leaves out nothing.
    """

    replayed: int
    left: int
    position: Position


class Replay:
    """Redelivers recorded events to a consumer, step by step, each step in its own commit.

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

    def run(self, wanted: EventRange, batch_size: int, rate: int) -> Iterator[Progress]:
        """Replay a range at most ``rate`` events a second; yields the progress after each step.

        No step begins while the consumer has BATCHES_IN_FLIGHT of its ``batch_size``: live events
        wait for some batches at most. Raises ConsumerIsBehind, LedgerUnavailable or
        ConcurrencyConflict; steps before stay committed.
        """
        most = BATCHES_IN_FLIGHT * batch_size
        limiter = RateLimiter(rate, clock=self._clock, pause=self._pause)
        replayed, left, position = 0, 0, None
        while True:
            self._wait_until_below(wanted.consumer, most)
            step = retry_on_conflict(
                partial(self._events.redeliver, wanted, position, min(limiter.step, most)),
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
            limiter.spend(step.replayed)

    def _wait_until_below(self, consumer: str, most: int) -> None:
        deadline = self._clock() + BUSY_SECONDS
        while self._events.in_flight(consumer, most) >= most:
            if self._clock() > deadline:
                raise ConsumerIsBehind(f"{consumer} had too much in flight for ten minutes")
            self._pause(POLL_SECONDS)
