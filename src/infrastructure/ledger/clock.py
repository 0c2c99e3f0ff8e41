"""The database's clock beside this process'."""

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

NOW: Final = text("SELECT clock_timestamp()")


def time_of_day() -> datetime:
    """What this process' clock says."""
    return datetime.now(UTC)


def how_far_ahead(connection: Connection) -> timedelta:
    """How far the database's clock is ahead of this process'; negative where it is behind."""
    at: datetime = connection.execute(NOW).scalar_one()
    return at - time_of_day()
