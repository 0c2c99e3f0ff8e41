"""How many people registered, by day."""

from datetime import date
from typing import Protocol


class RegistrationCounts(Protocol):
    """A projection: the registrations of each day (UTC)."""

    def add_one(self, day: date) -> None:
        """Count one more registration on that day."""
