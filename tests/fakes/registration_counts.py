"""Registrations by day, in memory."""

from collections import Counter
from datetime import date


class InMemoryRegistrationCounts:
    """A `RegistrationCounts` that a test can look into."""

    def __init__(self) -> None:
        self.by_day: Counter[date] = Counter()

    def add_one(self, day: date) -> None:
        """Count one more registration on that day."""
        self.by_day[day] += 1
