"""A consumer with effects outside the database, by an adapter that has settings."""

from typing import Protocol
from uuid import UUID

import structlog
from pydantic_settings import BaseSettings

from kratos_sync import AddressVerified, Consumer, IdentityRegistered, KratosIdentityUpdated


class Announcements(Protocol):
    """Where news is announced."""

    def announce(self, news: str, key: UUID) -> None:
        """Announce it; the key says whether it was announced before."""


class AnnounceNews(Consumer[KratosIdentityUpdated | IdentityRegistered | AddressVerified]):
    """Announces what has happened to somebody, each event alone."""

    name, batch_size = "AnnounceNews", 1

    def __init__(self, announcements: Announcements) -> None:
        self._announcements = announcements

    def consume(self, event: KratosIdentityUpdated | IdentityRegistered | AddressVerified) -> None:
        self._announcements.announce(event.name, event.id)


class AnnouncementSettings(BaseSettings):
    announcements_level: str = "debug"


class LoggedAnnouncements:
    """Announces in the log."""

    def __init__(self, settings: AnnouncementSettings) -> None:
        self._log = getattr(structlog.get_logger("foreign_app"), settings.announcements_level)

    def announce(self, news: str, key: UUID) -> None:
        self._log("announced", news=news, key=str(key))
