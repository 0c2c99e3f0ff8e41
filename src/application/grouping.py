"""Consumers with a `batch_size` of 1: how many of their events share a message and a commit.

Each of these events is written and undone alone. Those that take little time are committed
together, for a commit costs more than they do.
"""

from typing import Any, Final

from kratos_sync.application.consumer import Consumer, is_async

MOST_TOGETHER: Final = 32
"""The most events of a message and of a commit;"""
LONGEST_SECONDS: Final = 0.1
"""no further event begins in a transaction after this time."""
DECAY: Final = 0.8
"""How much of a slow event's time counts for the next message."""


def is_grouped(consumer: type[Consumer[Any]]) -> bool:
    """Whether the consumer's events are written and undone alone, and committed together."""
    return consumer.batch_size == 1 and not is_async(consumer)


def message_size(consumer: type[Consumer[Any]]) -> int:
    """The most events of a message."""
    return MOST_TOGETHER if is_grouped(consumer) else consumer.batch_size


class EventTimes:
    """How long events took lately: one that is slow must not hold up others of its message."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def note(self, consumer: type[Consumer[Any]], events: int, seconds: float) -> None:
        """Note that so many events took so many seconds of the consumer."""
        if events:
            before = self._seconds.get(consumer.name, 0.0)
            self._seconds[consumer.name] = max(seconds / events, before * DECAY)

    def fitting(self, consumer: type[Consumer[Any]]) -> int:
        """How many events one message should have: one until it is known that they are quick."""
        if not is_grouped(consumer):
            return consumer.batch_size
        if (seconds := self._seconds.get(consumer.name)) is None:
            return 1
        return min(max(int(LONGEST_SECONDS / max(seconds, 0.001)), 1), MOST_TOGETHER)
