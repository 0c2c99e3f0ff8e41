"""Counts registrations: an example of a consumer of a fact."""

from datetime import UTC, date
from typing import Protocol

from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import IdentityRegistered


class RegistrationCounts(Protocol):
    """The port: the registrations of each day (UTC)."""

    def add_one(self, day: date) -> None:
        """Count one more registration on that day."""


class CountRegistrations(Consumer[IdentityRegistered]):
    """Count each registration on the day (UTC) it happened in Kratos.

    A wrong count would show that an event took effect twice, or not at all.
    """

    name = "CountRegistrations"

    def __init__(self, counts: RegistrationCounts) -> None:
        self._counts = counts

    def consume(self, event: IdentityRegistered) -> None:
        self._counts.add_one((event.created_at or event.date_occurred).astimezone(UTC).date())
