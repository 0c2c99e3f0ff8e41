"""How long a consumer waits for Kratos, or for other consumers."""

from datetime import UTC, datetime, timedelta
from random import uniform
from typing import Final

from kratos_sync.application.consumer import RetryLater
from kratos_sync.domain.events import DomainEvent

PART_OF_AGE: Final = 4
"""An event is tried again after a fourth of its age, and LONGEST_WAIT at most."""
LONGEST_WAIT: Final = timedelta(minutes=5)
"""An outage of a night makes some hundred attempts."""
WAIT_FOR_A_URL: Final = timedelta(minutes=1)
"""Until a worker takes the event that has Kratos' URL."""


def part_of_age(event: DomainEvent) -> timedelta:
    """How long to wait, by the event's age: clocks differ, and little depends on it."""
    return min((datetime.now(UTC) - event.date_occurred) / PART_OF_AGE, LONGEST_WAIT)


def scattered(wait: timedelta) -> timedelta:
    """A little longer, each by another time, so that not all end at once."""
    return wait * uniform(1.0, 1.3)  # noqa: S311


def later(delay: timedelta, why: Exception) -> RetryLater:
    """The RetryLater that a consumer raises, with the reason as its note."""
    retry = RetryLater(delay)
    retry.add_note(str(why))
    return retry
