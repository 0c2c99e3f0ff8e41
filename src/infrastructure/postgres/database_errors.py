"""What using PostgreSQL may raise, and how to explain it in one line without a URL or password."""

from typing import Final

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from kratos_sync.application.ports.event_bus import LedgerUnavailable
from kratos_sync.infrastructure.postgres.connection_failures import ConnectFailed

DATABASE_ERRORS: Final = (LedgerUnavailable, SQLAlchemyError, psycopg.Error)


def is_refusal(error: BaseException) -> bool:
    """Whether PostgreSQL answered, and will not let us in until a person changes something."""
    found = _driver_error(error)
    return isinstance(found, ConnectFailed) and found.is_refusal


def why_unavailable(error: BaseException) -> str:
    """Explain why PostgreSQL could not be used."""
    found = _driver_error(error)
    if isinstance(found, ConnectFailed):
        return str(found)
    return f"PostgreSQL did not answer as it should ({type(found or error).__name__})"


def _driver_error(error: BaseException) -> BaseException | None:
    for each in (error, error.__cause__):
        found = getattr(each, "orig", each)
        if isinstance(found, psycopg.Error):
            return found
    return None
