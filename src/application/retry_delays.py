"""How long consumers wait for what they cannot speed up: Kratos, say, or other consumers."""

from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Final

from kratos_sync.application.consumer import RetryLater
from kratos_sync.domain.events import DomainEvent

PART_OF_AGE: Final = 4
"""What waits is looked at again after such a part of the time that it has waited,"""
LONGEST_WAIT: Final = timedelta(minutes=5)
"""and this at most: an outage of a night makes some hundred attempts."""
WAIT_FOR_A_URL: Final = timedelta(minutes=1)
"""For a worker that knows where Kratos is."""


def part_of_age(event: DomainEvent) -> timedelta:
    """How long to wait, by the event's age: clocks differ, and little depends on it."""
    return min((datetime.now(UTC) - event.date_occurred) / PART_OF_AGE, LONGEST_WAIT)


def scattered(wait: timedelta) -> timedelta:
    """Not all at the same moment, nor any too early."""
    return wait * uniform(1.0, 1.3)  # noqa: S311


def later(delay: timedelta, why: Exception) -> RetryLater:
    """What a consumer raises to be run again, with the reason beside it."""
    retry = RetryLater(delay)
    retry.add_note(str(why))
    return retry
